#!/bin/bash
# snapshots.sh: a running guest is snapshotted, and taken back to what it was.
. "$(dirname "$0")/checks.sh"
stage
mac=52:54:00:a0:00:01 plugged=52:54:00:a0:00:02 gateway=192.168.123.1
disk=$RIG_LOGS/web.qcow2
qemu-img create -q -f qcow2 "$disk" 64M || finish
export GUEST_DEVICES="<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='$disk'/><target dev='vda' bus='virtio'/></disk>"
define_guest web $mac network=nat
need "web starts" virsh start web
check "web has a lease" has_lease web
address=$(port $mac addresses)
lease() { vmfabric --json lease list | grep -v expires; }
lease=$(lease)
wait_for $LONG guest_run web true
bound_tap() { bound "$(tap_of web $mac)"; }
right() { # WHEN
  check "$1: it runs" running web
  check "$1: its port is active" eventually port_is $mac status active
  check "$1: its tap is bound" bound_tap
  check "$1: nothing else is" eval '[ "$(ip link | grep -c "alias vmfabric:port/")" = 1 ]'
  check "$1: the address is the same" port_is $mac addresses "$address"
  check "$1: so is the lease" eval '[ "$(lease)" = "$lease" ]'
  check "$1: the guest has it" guest_run web "ip addr show dev eth0 | grep -w $address"
  check "$1: it reaches its gateway" eventually pings web $gateway
  check "$1: the host reaches it" busybox ping -q -c 1 -W 5 "$address"
  check "$1: the plan is empty" eventually plan_is_empty
}
plug() { nic_xml $plugged network=nat >"$RIG_LOGS/nic.xml" && virsh attach-device web "$RIG_LOGS/nic.xml" --live; }

guest_run web 'echo before >/tmp/state'
check "an internal snapshot of the running guest" virsh snapshot-create-as web one
right snapshot
guest_run web 'echo after >/tmp/state'
check "it is taken back to it" virsh snapshot-revert web one
check "it is: what happened since has not" eventually guest_run web 'grep -x before /tmp/state'
right revert
check "a NIC is plugged" plug
check "its port is active" eventually port_is $plugged status active
check "the guest is taken back to when it had none" virsh snapshot-revert web one
check "that NIC's port is gone" eventually no_port $plugged
right "revert without the NIC"
check "with the daemon away, the guest is not taken back and does not run unconnected" eval \
  'stop_vmfabricd && fails_saying vmfabric virsh snapshot-revert web one && stopped web'
check "the daemon comes back" start_vmfabricd
check "nothing is bound" eventually nothing_bound
check "the stopped guest is taken back to when it ran" virsh snapshot-revert web one
right "revert of a stopped guest"
check "with the daemon killed right behind it" eval 'virsh snapshot-revert web one; stop_vmfabricd KILL; start_vmfabricd'
right "revert and kill"
check "the snapshot is deleted" virsh snapshot-delete web one
right "deleted snapshot"

check "an external snapshot, of the disk" virsh snapshot-create-as web disk --disk-only --diskspec vda,file="$RIG_LOGS/web.disk.qcow2"
right "external snapshot"
check "an external snapshot, of disk and memory" virsh snapshot-create-as web all --memspec "$RIG_LOGS/web.memory" \
  --diskspec vda,file="$RIG_LOGS/web.all.qcow2"
right "external snapshot with memory"
check "the guest stops" virsh destroy web
check "nothing is bound" eventually nothing_bound
check "its port is down" eventually port_is $mac status down
check "the plan is empty" eventually plan_is_empty
finish
