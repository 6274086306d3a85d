#!/usr/bin/env bash
# Builds the image of the gateway or of Triton with docker, podman or buildah, whichever is here, and says its name.
#
# usage: deploy/docker/build.sh gateway|triton [--offline] [BUILD OPTIONS...]
#   --offline      from deploy/docker/offline (see offline.sh), with no network; only with buildah
#   BUILD OPTIONS  handed on, such as --build-arg TRITON_IMAGE=... or --build-arg PIP_INDEX_URL=...
#   AUTOGLM_IMAGE_TAG  otherwise the version in pyproject.toml, which the chart asks for too
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly offline=deploy/docker/offline base=localhost/autoglm-base:offline

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 2; }

# An image made of offline/root.tar, once per content.
import_base() {
  local sum container
  [ -f "$offline/root.tar" ] || fail "$offline/root.tar is not there: offline.sh makes it where there is a network"
  sum=$(sha256sum "$offline/root.tar" | cut -d ' ' -f 1)
  [ "$(buildah inspect --format '{{index .OCIv1.Config.Labels "autoglm.root"}}' "$base" 2>/dev/null)" != "$sum" ] || return 0
  container=$(buildah from scratch)
  buildah add "$container" "$offline/root.tar" / >/dev/null
  buildah config --label "autoglm.root=$sum" --cmd '[]' "$container"
  buildah commit --quiet --rm "$container" "$base" >/dev/null
}

part=${1:-}
case "$part" in gateway | triton) shift ;; *) sed -n '2,7p' "$0" >&2; exit 2 ;; esac
tag="autoglm-$part:${AUTOGLM_IMAGE_TAG:-$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)}"
options=()
if [ "${1:-}" = --offline ]; then
  shift
  command -v buildah >/dev/null || fail "--offline needs buildah: apt-get install buildah runc"
  import_base
  options+=(--network none --pull-never --isolation oci --build-arg PIP_NO_INDEX=1)
  options+=(--build-arg PIP_FIND_LINKS=/build/docker/offline/wheels)
  case "$part" in
    gateway) options+=(--build-arg "PYTHON_IMAGE=$base") ;;
    triton) options+=(--build-arg "TRITON_IMAGE=$base" --build-arg EXTRAS=server) ;;
  esac
elif [ "$part" = triton ] && [[ " $* " != *TRITON_IMAGE=* ]]; then
  fail "say what to build on: --build-arg TRITON_IMAGE=..., NGC's tritonserver image whose tag ends in -py3"
fi

if command -v buildah >/dev/null; then builder=(buildah build --layers)
elif command -v docker >/dev/null; then builder=(docker build)
elif command -v podman >/dev/null; then builder=(podman build)
else fail "needs docker, podman or buildah"; fi
[ ${#options[@]} = 0 ] || builder=(buildah build --layers)
"${builder[@]}" --file "deploy/docker/$part.Dockerfile" --tag "$tag" "${options[@]}" "$@" .
echo "built $tag"
