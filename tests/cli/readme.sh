#!/bin/bash
# readme.sh: the commands of README.md's tour print what stands below them there, where it is not shortened.
. "$(dirname "$0")/console.sh"
prepare
ip link add eth1 type veth peer name outside && ip link set outside up || exit
shown ../README.md /etc/vmfabric/vmfabricd.toml >/etc/vmfabric/vmfabricd.toml
internet_host && start_vmfabricd && start_libvirt && wait_for 90 vmfabric status || exit
wait_for 30 eval 'virsh net-info nat | grep -q "^Active: *yes"' || exit
define_guest web 52:54:00:ab:cd:01 network=nat || exit
define_guest postgres 52:54:00:ab:cd:02 network=lab || exit
define_guest www 52:54:00:ab:cd:03 network=dmz || exit
GUEST_XML=$(sed -n '/^<metadata>$/,/^<\/metadata>$/p' "$docs/../README.md") define_guest firewall 52:54:00:ab:cd:04 network=transit || exit

# A person looks when the guest is up, and when what was deleted has had its moment.
eval "plain_$(declare -f virsh)"
virsh() {
  plain_virsh "$@" || return
  case $* in 'start web' | 'start postgres' | 'start www') wait_lease "$2" 150 >/dev/null ;; esac
}
ip() {
  command ip "$@" || return
  [ "$*" != 'link delete vmf-lab' ] || wait_for 60 eval 'vmfabric port list | grep -q "postgres.*active" && vmfabric plan'
}
export RIG_LOGS
export -f plain_virsh virsh ip systemctl wait_lease start_vmfabricd vmfabricd_answers not
run ../README.md shortened
exit $failed
