#!/bin/bash
# Real guests of a stock libvirtd, on VLANs.
. "$(dirname "$0")/lib.sh"

stage "the uplink" wire
stage "VLAN 10 outside" outside_vlan 10 10.0.10.250/24
stage "vmfabricd" start_host "${LAN[@]}"
stage "networks" eval "vmfabric network create v10 --physical lan --vlan 10 && vmfabric network create v20 --physical lan --vlan 20 &&
  vmfabric subnet create v10 10.0.10.0/24 --dhcp --forward nat --pool 10.0.10.10-10.0.10.99" >/dev/null
stage "libvirt" start_libvirt
published() { virsh net-list | grep -q v10 && virsh net-list | grep -q v20; }
check "libvirt shows the VLAN networks" wait_for 60 published

# By network, by metadata on the bridge, and one in another VLAN
stage "g1" define_guest g1 52:54:00:00:10:01 network=v10
GUEST_XML="<metadata><vmfabric:domain xmlns:vmfabric='https://vmfabric.org/xmlns/domain/1.0'>
  <vmfabric:interface mac='52:54:00:00:10:02' vlan='10'/></vmfabric:domain></metadata>" \
  stage "g2" define_guest g2 52:54:00:00:10:02 bridge=$BRIDGE
stage "g3" define_guest g3 52:54:00:00:20:03 network=v20
for g in g1 g2 g3; do check "virsh start $g" virsh start $g; done
check "the uplink carries both VLANs" same "10 20" uplink_vlans
check "g1 has a lease of VLAN 10" wait_lease g1 90
check "g2, which metadata put there, too" wait_lease g2 90
stage "g3 is up" wait_for 90 grep -q GUEST-NIC "$RIG_LOGS/g3.log"
check "g3 is given an address by hand" guest_run -t 60 g3 "ip addr add 10.0.10.33/24 dev eth0"
check "g1 reaches g2" guest_run -t 60 g1 "ping -c 3 -W 5 $(guest_ip g2)"
check "g1 reaches VLAN 10 outside" guest_run -t 60 g1 "ping -c 3 -W 5 10.0.10.250"
check "g3, in VLAN 20, does not reach g1, in the same subnet" eval "! guest_run -t 60 g3 'ping -c 2 -W 2 $(guest_ip g1)'"
check "… nor VLAN 10 outside" eval "! guest_run -t 60 g3 'ping -c 2 -W 2 10.0.10.250'"
check "g1 does not reach it" eval "! guest_run -t 60 g1 'ping -c 2 -W 2 10.0.10.33'"
check "the plan is empty" idle

check "a NIC plugged into the running g3, in VLAN 10" \
  eval 'virsh attach-device g3 /dev/stdin <<<"$(nic_xml 52:54:00:00:10:04 network=v10)"'
check "… has a lease" wait_lease g3 90 eth1
check "… and the other NIC stays in VLAN 20" same "20u" eval 'uplink_vlans $(virsh domiflist g3 | awk "/00:20:03/ { print \$1 }")'
check "virsh destroy g3" virsh destroy g3
check "VLAN 20 leaves the uplink" same "10" uplink_vlans
virsh destroy g1 >/dev/null && virsh destroy g2 >/dev/null
check "the gateway alone keeps VLAN 10 there" same "10" uplink_vlans
check "the subnet goes" vmfabric subnet delete v10
check "with it, VLAN 10 leaves the uplink" same "" uplink_vlans

# g1 moves to VLAN 20 by its definition
GUEST_XML="<uuid>$(virsh domuuid g1)</uuid>" stage "g1's new definition" define_guest g1 52:54:00:00:10:01 network=v20
check "virsh start g1, in VLAN 20 now" virsh start g1
check "only VLAN 20 is on the uplink" same "20" uplink_vlans
check "no problem is left" shows "problems *none" vmfabric status
finish
