#!/bin/bash
# A bridge that is not ours: we touch our guests' ports and their VLANs, and nothing else.
. "$(dirname "$0")/lib.sh"
GUEST_BRIDGE=br0

# The administrator's bridge: VLAN-aware, with an uplink, a port of somebody else's and settings of its own.
stage "the uplink" wire
ip link add br0 address 02:00:00:00:00:b0 type bridge vlan_filtering 1 ageing_time 20000 forward_delay 400 mcast_snooping 0 && ip link set br0 up
ip link set eth1 master br0 && bridge vlan add vid 10 dev eth1 && bridge vlan add vid 20 dev eth1
ip addr add 10.0.1.5/24 dev br0
stage "somebody else's machine" machine other 10.0.10.50/24
ip link set other master br0 up && bridge vlan del vid 1 dev other && bridge vlan add vid 10 pvid untagged dev other
ip link set other alias "not ours"
stage "VLAN 10 outside" outside_vlan 10 10.0.10.1/24
stage "VLAN 20 outside" outside_vlan 20 10.0.20.1/24

# All that is not our guests', and does not change by itself
foreign() {
  ip -j -d link show | python3 -c '
import json, sys
for link in json.load(sys.stdin):
    if link["ifname"] in ("br0", "eth1", "other"):
        data = link.get("linkinfo", {}).get("info_data", {})
        for timer in [key for key in data if "timer" in key]:
            del data[timer]
        slave = link.get("linkinfo", {}).get("info_slave_data", {})
        for timer in [key for key in slave if "timer" in key]:
            del slave[timer]
        print(json.dumps(link, sort_keys=True))'
  bridge -j vlan show | python3 -c '
import json, sys
for port in json.load(sys.stdin):
    if port["ifname"] in ("br0", "eth1", "other"):
        print(json.dumps(port, sort_keys=True))'
  ip -j addr show br0 | grep -o '"local":"[^"]*"'
}
wait_for 10 eval 'ip -j link show eth1 | grep -q "\"operstate\":\"UP\""'
wait_for 10 eval 'ip -j link show br0 | grep -q "\"operstate\":\"UP\""'
before=$(foreign)

stage "vmfabricd" start_host '[physical_networks.dc]' 'bridge = "br0"' 'vlans = "10-99"' 'native_vlan = 1'
stage "networks" eval "vmfabric network create v10 --physical dc --vlan 10 && vmfabric network create v20 --physical dc --vlan 20 &&
  vmfabric network create flat --physical dc" >/dev/null
stage "a1" guest a1 "network='v10'" 10.0.10.11/24
stage "b1" guest b1 "network='v20'" 10.0.20.21/24
stage "f1" guest f1 "network='flat'" 10.0.1.31/24
stage "t1" guest t1 "network='v20' trunk='10,20' native='20'" 10.0.20.22/24
check "a1 is in VLAN 10 alone" same "10u" uplink_vlans a1
check "b1 is in VLAN 20 alone" same "20u" uplink_vlans b1
check "f1 is in the bridge's untagged VLAN" same "1u" uplink_vlans f1
check "the trunk has its VLANs" same "10 20u" uplink_vlans t1
check "a1 reaches somebody else's machine in VLAN 10" pings a1 10.0.10.50
check "a1 reaches VLAN 10 outside, through the administrator's uplink" pings a1 10.0.10.1
check "b1 reaches VLAN 20 outside" pings b1 10.0.20.1
check "t1 is in VLAN 20" pings t1 10.0.20.21
check "f1 reaches the host's own address on its bridge" pings f1 10.0.1.5
ip -n b1 addr add 10.0.10.99/24 dev eth0
check "b1 does not reach VLAN 10" silent b1 10.0.10.11
check "the bridge, its uplink and the other port are untouched" same "$before" foreign
check "no rule of ours is about that bridge" eval '! nft list ruleset | grep br0'
check "the plan is empty" idle

# Its owner changes it, as is theirs to do.
bridge vlan add vid 55 dev eth1 && bridge vlan add vid 77 dev other
before=$(foreign)
stage "restart" eval "stop_vmfabricd KILL && start_vmfabricd"
check "the plan is empty after a restart" vmfabric plan
check "what the owner changed stays" same "$before" foreign
check "a guest's VLAN that somebody added is taken away" eval 'bridge vlan add vid 20 dev a1; same 10u uplink_vlans a1'
check "subnets that need the host there are refused" says "does not own" vmfabric subnet create v10 10.0.10.0/24 --forward nat
for g in a1 b1 f1 t1; do gone $g; done
for n in v10 v20 flat; do vmfabric network delete $n; done
check "with guests and networks gone, the bridge is as it was" same "$before" foreign

# Without VLAN filtering
ip link set br0 type bridge vlan_filtering 0
before=$(foreign)
check "a VLAN network on a bridge that does not tell VLANs apart can be made" vmfabric network create v10 --physical dc --vlan 10
check "… and is a problem that says what to do" \
  shows "br0 does not tell VLANs apart.*ip link set br0 type bridge vlan_filtering 1" vmfabric status
check "a guest that would start there is told so" says "br0 does not tell VLANs apart" hook a1 prepare "network='v10'"
vmfabric network create flat --physical dc >/dev/null
check "a flat network on it is well" guest f1 "network='flat'" 10.0.1.31/24
check "… and reaches the host's own address" pings f1 10.0.1.5
check "a trunk on it cannot start" says "does not tell VLANs apart" guest t1 "network='flat' trunk='10,20'"
check "the bridge is untouched" same "$before" foreign
ip link set br0 type bridge vlan_filtering 1
check "switched on, the problem is over" wait_for 30 not eval "vmfabric status | grep 'tell VLANs apart'"
check "… and a guest can start" guest a1 "network='v10'" 10.0.10.11/24
check "… and is in VLAN 10 alone" same "10u" uplink_vlans a1
check "the flat guest's port is in the untagged VLAN" same "1u" uplink_vlans f1
ip link delete br0
check "a bridge that is gone is a problem" shows "br0 does not exist" vmfabric status
finish
