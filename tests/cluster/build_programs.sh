#!/usr/bin/env bash
# Builds the programs of the cluster tests into .cache/cluster/bin: about 10 minutes on two idle cores, once.
# The version in a program's own `--version` proves what was built; what is there already is not built again.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bin="${AUTOGLM_CLUSTER_BIN:-$here/../../.cache/cluster/bin}"
mkdir -p "$bin"
command -v go >/dev/null || { echo "build_programs.sh: the cluster tests need Go 1.24 or newer on PATH" >&2; exit 3; }
export GOTOOLCHAIN=local CGO_ENABLED=0

KUBERNETES=v1.34.3
HELM3=v3.18.6
HELM4=v4.2.4
KWOK=v0.7.0

stamp=()
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  stamp+=(-X "$package.gitVersion=$KUBERNETES" -X "$package.gitMajor=1" -X "$package.gitMinor=34" -X "$package.gitTreeState=clean")
done

cd "$here/programs/kubernetes"
for package in k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl} go.etcd.io/etcd/server/v3; do
  name="$(basename "$package")"
  [[ $name == v3 ]] && name=etcd
  [[ -x $bin/$name ]] && continue
  echo "building $name"
  go build -trimpath -ldflags "-s -w ${stamp[*]}" -o "$bin/$name.part" "$package"
  mv "$bin/$name.part" "$bin/$name"
done

if [[ ! -x $bin/coredns ]]; then
  echo "building coredns"
  cd "$here/programs/coredns"
  go build -trimpath -ldflags "-s -w" -o "$bin/coredns.part" .
  mv "$bin/coredns.part" "$bin/coredns"
fi

install_tool() { # NAME PACKAGE@VERSION COMMAND
  [[ -x $bin/$1 ]] && return
  echo "building $1"
  local folder
  folder="$(mktemp -d)"
  GOBIN="$folder" go install -trimpath -ldflags "-s -w" "$2"
  mv "$folder/$3" "$bin/$1"
  rmdir "$folder"
}
install_tool helm "helm.sh/helm/v3/cmd/helm@$HELM3" helm
install_tool helm4 "helm.sh/helm/v4/cmd/helm@$HELM4" helm
install_tool kwok "sigs.k8s.io/kwok/cmd/kwok@$KWOK" kwok
echo "cluster programs are in $bin"
