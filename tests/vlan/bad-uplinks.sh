#!/bin/bash
# Uplinks that cannot be, or that come and go; VLANs that may not be. Each with an error that says what to do.
. "$(dirname "$0")/lib.sh"

problems() { vmfabric status; }
reload() { kill -HUP "$VMFABRICD_PID"; }
create() { vmfabric network create "$@"; }

# --- What the command refuses ---
stage "the uplink" wire
stage "vmfabricd" start_host "${LAN[@]}"
check "VLAN 0 is out of range" says "0.*1 to 4094" create x --physical lan --vlan 0
check "VLAN 4095 is out of range" says "4095.*1 to 4094" create x --physical lan --vlan 4095
check "VLAN 100 is outside of what the configuration allows" says "VLAN 100 is outside 10-99.*'lan'" create x --physical lan --vlan 100
check "a physical network that is not configured" says "'wan'.*'lan'" create x --physical wan --vlan 10
check "the native VLAN is the flat network's" says "(native|outside|allow)" create x --physical lan --vlan 1
check "VLAN 10" create v10 --physical lan --vlan 10
check "the same VLAN again names the network that has it" says "VLAN 10.*v10" create y --physical lan --vlan 10
check "a trunk with a VLAN outside of what is allowed" says "VLAN 100.*lan" vmfabric port create v10 --trunk 11,100
check "a trunk whose native VLAN is tagged too" says "VLAN 10.*native" vmfabric port create v10 --trunk 10,11
check "a trunk on a local network" says "local.*trunk" vmfabric port create nat --trunk 10
check "nothing of what was refused is left" same "nat v10" eval "vmfabric --json network list | python3 -c '
import json, sys
data = json.load(sys.stdin)
print(*sorted(n[\"name\"] for n in (data if isinstance(data, list) else data[\"networks\"])))'"
check "a guest that asks for a VLAN out of range cannot start" says "VLAN '4095' is out of range" hook bad prepare "vlan='4095'"
check "a guest that asks for a VLAN without a network is told how to make one" \
  says "VLAN 77.*vmfabric network create" hook bad prepare "vlan='77'"
check "a guest that asks for a network that we don't have is told so" says "'v99'.*does not exist" hook bad prepare "network='v99'"

# --- The uplink is unplugged, and plugged again ---
stage "VLAN 10 outside" outside_vlan 10 10.0.10.1/24
stage "a1" guest a1 "network='v10'" 10.0.10.11/24
stage "a2" guest a2 "network='v10'" 10.0.10.12/24
check "a1 reaches the world outside" pings a1 10.0.10.1
ip netns exec a1 ping -q -i 0.2 10.0.10.12 >"$RIG_LOGS/between" &
between=$!
ip link delete eth1
check "an uplink that is unplugged is a problem that names it" shows "eth1.*does not exist.*plug it in" problems
check "… of that network" shows "error" eval "vmfabric network list | grep v10"
check "a guest that would start there is told why it cannot" says "eth1.*does not exist" hook a3 prepare "network='v10'"
check "guests on this host go on talking" pings a1 10.0.10.12
stage "the uplink again" wire
stage "VLAN 10 outside again" outside_vlan 10 10.0.10.1/24
check "plugged again, it carries its VLANs again" same "10" uplink_vlans
check "… and the guests reach the world outside" wait_for 30 pings a1 10.0.10.1
check "the problem is over" wait_for 30 not eval "vmfabric status | grep eth1"
kill -INT $between
wait $between
check "between guests nothing was lost meanwhile" grep ' 0% packet loss' "$RIG_LOGS/between"
check "the plan is empty" idle

# --- While the uplink is away, the daemon is started again ---
ip link delete eth1
check "unplugged again" shows "eth1.*does not exist" problems
stage "the daemon stops" stop_vmfabricd KILL
stage "the daemon starts" start_vmfabricd
check "guests on this host talk, with the daemon started again meanwhile" pings a1 10.0.10.12
stage "the uplink again" wire
check "plugged again, it carries its VLANs again" same "10" uplink_vlans
stage "VLAN 10 outside again" outside_vlan 10 10.0.10.1/24
check "… and the guests reach the world outside" wait_for 30 pings a1 10.0.10.1

# --- An address on the uplink, given while guests run ---
stage "an address on the uplink" ip addr add 192.0.2.1/24 dev eth1
check "an address that the uplink gets later is a problem" shows "eth1.*the host's own address" problems
check "… that does not cut off the guests that run" pings a1 10.0.10.1
ip addr del 192.0.2.1/24 dev eth1
check "it is over with the address" wait_for 30 not eval "vmfabric status | grep eth1"
gone a1
gone a2
stage "VLAN 10 goes" vmfabric network delete v10

# --- A NIC that holds the host's address ---
bridge_is_there() { ip link show $BRIDGE; }
not_taken() { [ -z "$(ip -j link show eth1 | grep -o '"master"')" ]; }
check "the uplink is free" wait_for 30 not_taken
ip addr add 192.0.2.1/24 dev eth1 && ip -n outside addr add 192.0.2.2/24 dev wire
check "the host reaches its neighbour" ping -q -c 1 -W 5 192.0.2.2
check "a network on a NIC with the host's address can be made" create v10 --physical lan --vlan 10
check "… and is a problem that says what to do" shows "eth1 holds the host's own address.*take_host_nic = true" problems
check "a guest that would start there is told so" says "eth1 holds the host's own address" hook a1 prepare "network='v10'"
check "the NIC is left alone" not_taken
check "… and the host still reaches its neighbour" ping -q -c 1 -W 5 192.0.2.2
configure "${LAN[@]}" "take_host_nic = true"
stage "reload" reload
check "with take_host_nic = true it is taken" wait_for 30 bridge_is_there
check "a guest can start there" guest a1 "network='v10'" 10.0.10.11/24
check "… and reaches the world outside" pings a1 10.0.10.1
check "no problem is left" shows "problems *none" problems
gone a1
stage "VLAN 10 goes" vmfabric network delete v10
ip addr del 192.0.2.1/24 dev eth1

# --- One that is another bridge's already, one that never was ---
check "the uplink is free" wait_for 30 not_taken
ip link add br9 type bridge && ip link set eth1 master br9
configure "${LAN[@]}"
stage "reload" reload
check "a network on another bridge's port can be made" create v10 --physical lan --vlan 10
check "… and is a problem that says what to do" shows 'eth1.*belongs to br9.*bridge = "br9"' problems
check "the NIC stays where it is" eval 'ip -j link show eth1 | grep -q "\"master\":\"br9\""'
ip link delete br9
check "taken out, it is ours" same "eth1" eval "bridge -j link | python3 -c 'import json, sys
print(*(p[\"ifname\"] for p in json.load(sys.stdin) if p.get(\"master\") == \"$BRIDGE\"))'"
configure '[physical_networks.lan]' 'interface = "eth7"' 'vlans = "10-99"'
stage "reload" reload
check "an uplink that never was" shows "eth7.*does not exist.*vmfabricd.toml" problems
free() { not_taken && [ -z "$(cat /sys/class/net/eth1/ifalias)" ]; }
check "the former uplink is let go" wait_for 30 free
ip link add $BRIDGE-x type bridge 2>/dev/null
configure '[physical_networks.lan]' 'interface = "eth1"' 'vlans = "10-5000"'
check "a VLAN range out of range in the configuration names file, line and key" \
  says "vmfabricd.toml:3: physical_networks.lan.vlans: .*5000" vmfabricd --config /etc/vmfabric/vmfabricd.toml
finish
