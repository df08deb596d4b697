#!/bin/bash
# nic-vlan.sh: NICs with a <vlan> of their own, which libvirt takes on bridges since 11.0: an access port and a trunk.
. "$(dirname "$0")/lib.sh"

stage "the uplink" wire
stage "VLAN 10 outside" outside_vlan 10 10.0.10.250/24
stage "VLAN 20 outside" outside_vlan 20 10.0.20.250/24
stage "vmfabricd" start_host "${LAN[@]}"
stage "networks" eval "vmfabric network create v10 --physical lan --vlan 10 && vmfabric network create v20 --physical lan --vlan 20 &&
  vmfabric subnet create v10 10.0.10.0/24 --dhcp --pool 10.0.10.10-10.0.10.99" >/dev/null
stage "libvirt" start_libvirt
check "libvirt is one that takes them" eval 'virsh version --daemon | grep -E "daemon: (1[1-9]|[2-9][0-9])\."'
nic() { echo "<interface type='bridge'><source bridge='$BRIDGE'/>$1</interface>"; }
vlans_of() { uplink_vlans "$(virsh domiflist "$1" | awk '/52:54/ { print $1 }')"; }

stage "g1, with <vlan><tag id='10'/></vlan>" define_guest g1 52:54:00:00:11:01 "$(nic "<vlan><tag id='10'/></vlan>")"
stage "g2, with <vlan trunk='yes'> of 10, native, and 20" define_guest g2 52:54:00:00:11:02 \
  "$(nic "<vlan trunk='yes'><tag id='10' nativeMode='untagged'/><tag id='20'/></vlan>")"
for g in g1 g2; do check "virsh start $g" virsh start $g; done
check "g1 is a port of the network v10" shows '"network": *"v10"|v10' vmfabric port list
check "g1 is in VLAN 10 alone" same "10u" vlans_of g1
check "g2 has VLAN 10 untagged and VLAN 20" same "10u 20" vlans_of g2
check "the uplink carries both" same "10 20" uplink_vlans
check "g1 has a lease of VLAN 10" wait_lease g1 90
check "g2 too" wait_lease g2 90
check "g1 reaches VLAN 10 outside" guest_run -t 60 g1 "ping -c 3 -W 5 10.0.10.250"
check "g1 reaches g2" guest_run -t 60 g1 "ping -c 3 -W 5 $(guest_ip g2)"
check "the plan is empty: nobody takes back what the other did" idle
check "virsh domiflist and vmfabric agree on the taps" eval '[ "$(virsh domiflist g1 | awk "/52:54/ { print \$1 }")" = "$(vmfabric --json port list | python3 -c "import json, sys; print(next(p[\"tap\"] for p in json.load(sys.stdin) if p[\"mac\"] == \"52:54:00:00:11:01\"))")" ]'

stage "a NIC of VLAN 20" eval 'nic_xml 52:54:00:00:11:03 "$(nic "<vlan><tag id=\"20\"/></vlan>")" >"$RIG_LOGS/nic.xml"'
check "it is plugged into g1" virsh attach-device g1 "$RIG_LOGS/nic.xml"
check "it is in VLAN 20" same "20u" eval 'uplink_vlans $(virsh domiflist g1 | awk "/11:03/ { print \$1 }")'
check "the plan is empty" idle
check "it is unplugged" virsh detach-device g1 "$RIG_LOGS/nic.xml"
sed 's/id="20"/id="77"/' "$RIG_LOGS/nic.xml" >"$RIG_LOGS/nic77.xml"
check "a VLAN without a network: the NIC is not connected" eval '! virsh attach-device g1 "$RIG_LOGS/nic77.xml" || shows 77 vmfabric status'
virsh destroy g1 >/dev/null && virsh destroy g2 >/dev/null
check "no VLAN is left on the uplink" same "10" uplink_vlans
check "the plan is empty at the end" idle
finish
