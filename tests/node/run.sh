#!/usr/bin/env bash
# Runs the node tests in namespaces of their own (mounts, network, processes), so that nothing of them outlives them and
# no packet of theirs leaves this machine. Root only. usage: tests/node/run.sh PYTHON [PYTEST OPTIONS...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ "$(id -u)" = 0 ] || { echo "run.sh: the node tests start containers and need root" >&2; exit 2; }

# short: a Unix socket's path holds 107 characters
AUTOGLM_NODE_FOLDER=$(mktemp -d /tmp/autoglm-node.XXXX)
export AUTOGLM_NODE_FOLDER AUTOGLM_ASKED_FOR=node PYTHONUNBUFFERED=1

# the kubelet sets these for the whole machine, and no namespace holds them
declare -A settings
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_max{keys,bytes}; do
  settings[$setting]=$(cat "/proc/sys/$setting")
done

clean_up() {
  # only when every process in the namespaces is gone, and with them every mount
  rm -rf "$AUTOGLM_NODE_FOLDER"
  find /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods -depth -type d -exec rmdir {} + 2>/dev/null || true
  for setting in "${!settings[@]}"; do
    [ "$(cat "/proc/sys/$setting")" = "${settings[$setting]}" ] || echo "${settings[$setting]}" > "/proc/sys/$setting"
  done
}
trap clean_up EXIT

# shellcheck disable=SC2016 # expanded inside
unshare --mount --net --pid --fork --kill-child --mount-proc -- bash -euc '
  mount --make-rshared /
  # what containerd, the kubelet and the network plugins keep at fixed places
  for folder in /run /var/log; do mount -t tmpfs none "$folder"; done
  mkdir "$AUTOGLM_NODE_FOLDER/var-lib" "$AUTOGLM_NODE_FOLDER/var-lib-work"
  layers="lowerdir=/var/lib,upperdir=$AUTOGLM_NODE_FOLDER/var-lib,workdir=$AUTOGLM_NODE_FOLDER/var-lib-work"
  mount -t overlay none -o "$layers" /var/lib
  # the shell may sit in a memory cgroup where containers get no say
  [ ! -e /sys/fs/cgroup/memory/cgroup.procs ] || echo $$ > /sys/fs/cgroup/memory/cgroup.procs
  sysctl -qw net.ipv4.ip_forward=1
  ip link set lo up
  ip link add node0 type bridge
  ip address add 10.250.0.1/24 dev node0
  ip link set node0 up
  ip route add default dev node0
  # not as the last command, which bash would become: the first process must gather the orphans of containerd
  status=0
  "$@" || status=$?
  exit "$status"
' bash "$1" -m pytest tests/node -s "${@:2}" &
tests=$!
# unshare itself waits for its child whatever comes; with that one, the first process in there, all others end
trap 'kill -KILL $(ps -o pid= --ppid "$tests")' HUP INT TERM
status=0
wait "$tests" || status=$?
while kill -0 "$tests" 2>/dev/null; do wait "$tests" || status=$?; done  # a signal ended the first wait only
exit "$status"
