#!/usr/bin/env bash
# Collects in deploy/docker/offline what `build.sh --offline` needs on a machine without a network: a Debian root file
# system and the wheels of constraints.txt. Run it as root on Debian or Ubuntu with a network, and carry the folder over.
#
# usage: deploy/docker/offline.sh gateway|triton
#   AUTOGLM_DEBIAN_MIRROR  a mirror instead of Debian's own
#   PIP_INDEX_URL          an index instead of the one that pip is set up for
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly offline=deploy/docker/offline suite=bookworm
declare -A extras=([gateway]=gateway [triton]=server)
# pip of the root file system installs the wheels; Triton's Python stub loads libpython, its kernels libgomp
readonly packages=ca-certificates,libgomp1,libpython3.11,python3,python3-pip

part=${1:-}
[ -n "$part" ] && [ -n "${extras[$part]:-}" ] || { sed -n '2,7p' "$0" >&2; exit 2; }
command -v mmdebstrap >/dev/null || { echo "offline.sh: apt-get install mmdebstrap" >&2; exit 2; }
mkdir -p "$offline/wheels"
if [ ! -f "$offline/root.tar" ]; then
  mmdebstrap --variant=minbase --include="$packages" "$suite" "$offline/root.part.tar" ${AUTOGLM_DEBIAN_MIRROR:+"$AUTOGLM_DEBIAN_MIRROR"}
  mv "$offline/root.part.tar" "$offline/root.tar"
fi
# pip of that very system chooses the wheels, so that they fit its Python
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
tar --extract --file "$offline/root.tar" --directory "$root" --exclude './dev/*'
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" # this machine's authorities: the site's own may be among them
mkdir "$root/collect"
cp pyproject.toml constraints.txt deploy/docker/requirements.py "$root/collect/"
index=${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}
[ -z "$index" ] || export PIP_INDEX_URL="$index"
# shellcheck disable=SC2016 # expanded inside
chroot "$root" sh -euc 'cd /collect
  python3 requirements.py "$1" > requirements.txt
  HOME=/tmp python3 -m pip download --disable-pip-version-check --no-cache-dir --quiet --only-binary :all: --dest wheels \
    --constraint constraints.txt --requirement requirements.txt' sh "${extras[$part]}"
cp "$root"/collect/wheels/* "$offline/wheels/"
echo "collected for $part: $(du -sh "$offline" | cut -f 1) in $offline"
