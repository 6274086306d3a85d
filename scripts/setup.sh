#!/usr/bin/env bash
# Makes .venv and installs this checkout into it; returns at once when that has been done for these very pins.
#
# usage: scripts/setup.sh serve|dev        what the server needs, or all that the tests and checks need
#   AUTOGLM_PYTHON           the Python to use (3.10 to 3.12); otherwise the first one found on PATH
#   AUTOGLM_TORCH_INDEX_URL  a package index to take torch from, such as a CPU-only one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly venv_python=.venv/bin/python

say() { printf '[SETUP] %3d s  %s\n' "$SECONDS" "$*"; }
fail() { printf '[SETUP] %s\n' "$*" >&2; exit 1; }

is_supported() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

find_python() {
  local name
  if [ -n "${AUTOGLM_PYTHON:-}" ]; then
    is_supported "$AUTOGLM_PYTHON" || fail "AUTOGLM_PYTHON=$AUTOGLM_PYTHON is not a Python 3.10, 3.11 or 3.12."
    echo "$AUTOGLM_PYTHON"
    return
  fi
  for name in python3 python3.12 python3.11 python3.10; do
    if is_supported "$name"; then
      echo "$name"
      return
    fi
  done
  fail "Python 3.10, 3.11 or 3.12 is needed, and here python3 is $(python3 --version 2>&1 || echo missing);" \
    "install one of them, or name it in AUTOGLM_PYTHON."
}

# What pip cannot bring: prints the Debian packages that this Python lacks.
missing_packages() {
  local version
  version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  "$1" -c 'import ensurepip' 2>/dev/null || echo "python$version-venv"
  PYTHONPATH=python_backend "$1" -m autoglm_backend.launcher.libpython >/dev/null 2>&1 || echo "libpython$version"
  if [ "$profile" = dev ]; then # the phone world is drawn with these fonts and spoken with this voice
    [ -n "$(find /usr/share/fonts -name DejaVuSans.ttf 2>/dev/null)" ] || echo fonts-dejavu-core
    [ -n "$(find /usr/share/fonts -name LiberationSans-Regular.ttf 2>/dev/null)" ] || echo fonts-liberation
    [ -n "$(find /usr/share/fonts -name wqy-microhei.ttc 2>/dev/null)" ] || echo fonts-wqy-microhei
    command -v espeak-ng >/dev/null || echo espeak-ng
    command -v redis-server >/dev/null || echo redis-server
    command -v chromium google-chrome >/dev/null || echo chromium # the page's tests
  fi
}

install_missing_packages() {
  local packages
  packages=$(missing_packages "$1" | xargs)
  [ -n "$packages" ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "pip cannot install everything that is needed; run: sudo apt-get update && sudo apt-get install -y $packages"
  fi
  say "installing with apt-get: $packages"
  apt-get update -qq
  # shellcheck disable=SC2086 # a list of words
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
  packages=$(missing_packages "$1" | xargs)
  [ -z "$packages" ] || fail "apt-get ran, but $1 still does not find what these packages hold: $packages"
}

install_environment() {
  local python index
  if is_supported "$venv_python"; then
    install_missing_packages "$venv_python"
  else
    python=$(find_python)
    install_missing_packages "$python"
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
  fi
  if ! .venv/bin/uv --version >/dev/null 2>&1; then
    say "installing uv"
    "$venv_python" -m pip --version >/dev/null 2>&1 || "$venv_python" -m ensurepip >/dev/null
    "$venv_python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
  fi
  # uv reads its own settings only: a machine set up for pip has its index there
  index=$("$venv_python" -m pip config get global.index-url 2>/dev/null || true)
  [ -z "${PIP_INDEX_URL:-$index}" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$index}}"
  # hard links end at the file system's border; saying so beforehand spares a warning
  if [ "$(stat -c %d "$(mkdir -p "$(.venv/bin/uv cache dir)" && .venv/bin/uv cache dir)")" != "$(stat -c %d .venv)" ]; then
    export UV_LINK_MODE="${UV_LINK_MODE:-copy}"
  fi
  if [ -n "${AUTOGLM_TORCH_INDEX_URL:-}" ]; then
    say "installing torch from AUTOGLM_TORCH_INDEX_URL"
    # without its dependencies: the next step takes those from the usual index
    uv_install --index-url "$AUTOGLM_TORCH_INDEX_URL" --no-deps "$(grep -oE '^torch==[0-9.]+' constraints.txt)"
  fi
  say "installing the pinned packages (2.7 GB to download where uv's cache is empty)"
  uv_install --constraint constraints.txt --build-constraint constraints.txt "${requirements[@]}"
  if [ "$profile" = dev ] && ! command -v promtool >/dev/null && ! scripts/get_promtool.sh; then
    say "without promtool: the tests of the alerts will be skipped"
  fi
}

uv_install() {
  heartbeat &
  local beat=$! status=0
  .venv/bin/uv pip install --python "$venv_python" "$@" || status=$?
  kill "$beat" && wait "$beat" 2>/dev/null || true
  [ "$status" = 0 ] || fail "uv could not install the packages (its message stands above)."
}

# uv draws its progress on terminals only.
heartbeat() {
  exec 8<> <(:) # never readable: `read` is a sleep that leaves no child process behind
  while kill -0 $$ 2>/dev/null; do
    read -rt 10 -u 8 || say "still installing"
  done
}

fingerprint() {
  { echo "$PWD"; "$venv_python" --version; cat pyproject.toml constraints.txt scripts/setup.sh; } 2>/dev/null \
    | sha256sum | cut -d ' ' -f 1
}

is_done() {
  local stamp
  for stamp in ".venv/.setup-$profile" .venv/.setup-dev; do # dev holds all of serve
    [ "$(cat "$stamp" 2>/dev/null)" != "$1" ] || return 0
  done
  return 1
}

profile=${1:-}
case "$profile" in
  serve) requirements=(--editable '.[server,client]') ;;
  dev) requirements=(--editable '.[server,client,train,bench,deploy,engines]' --group dev) ;;
  python) find_python; exit ;;
  *) sed -n '2,6p' "$0"; exit 2 ;;
esac
is_done "$(fingerprint)" && exit 0
mkdir -p .cache
exec 9> .cache/setup.lock
flock --nonblock 9 || { say "waiting for another set-up of this checkout"; flock 9; }
is_done "$(fingerprint)" && exit 0
install_environment
fingerprint > ".venv/.setup-$profile"
say "set-up complete"
