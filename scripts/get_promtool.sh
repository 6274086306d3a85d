#!/usr/bin/env bash
# Puts promtool and prometheus into .cache/prometheus, for the tests of the alerts and for dashboards of local runs.
# They come out of Debian's package, which is unpacked and not installed: nothing starts, and no root is needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly target=.cache/prometheus

[ ! -x "$target/promtool" ] || exit 0
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "get_promtool.sh: needs apt-get and dpkg-deb; elsewhere put promtool on PATH" >&2
  exit 3
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt's own user downloads into it
download() { (cd "$work" && apt-get download -qq prometheus 2>"$work/apt.log"); }
if ! download; then
  [ "$(id -u)" != 0 ] || apt-get update -qq
  download || { cat "$work/apt.log" >&2; exit 1; }
fi
dpkg-deb --extract "$work"/prometheus_*.deb "$work/package"
mkdir -p "$target"
mv "$work/package/usr/bin/prometheus" "$work/package/usr/bin/promtool" "$target/"
