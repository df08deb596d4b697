#!/bin/bash
# On a kernel without bridge VLAN filtering: VLAN networks say why they cannot be, everything else works.
. "$(dirname "$0")/lib.sh"

stage "a bridge that ignores VLANs" eval \
  '! { ip link add probe type bridge vlan_filtering 1 && ip -d link show probe | grep -q "vlan_filtering 1"; } 2>/dev/null'
ip link delete probe 2>/dev/null
stage "the uplink" wire
ip -n outside addr add 10.0.1.1/24 dev wire
stage "vmfabricd" start_host "${LAN[@]}"
stage "flat" vmfabric network create flat --physical lan >/dev/null
stage "v10" vmfabric network create v10 --physical lan --vlan 10 >/dev/null
check "a VLAN network is a problem that says what to do" \
  shows "v10: this kernel has no bridge VLAN filtering.*boot a kernel that has it" vmfabric status
check "a guest that would start there is told so" says "no bridge VLAN filtering" hook a1 prepare "network='v10'"
check "a trunk cannot start" says "VLAN" guest t1 "network='flat' trunk='10,20'"
check "a flat guest starts" guest f1 "network='flat'" 10.0.1.31/24
check "another" guest f2 "network='flat'" 10.0.1.32/24
check "they reach each other" pings f1 10.0.1.32
check "… and the world outside" pings f1 10.0.1.1
check "a local network works beside it" eval "vmfabric network set nat port-security=off >/dev/null && GUEST_BRIDGE=vmf-nat guest n1 \"network='nat'\" 192.168.123.9/24 && pings n1 192.168.123.1"
check "the flat network has no problem" eval '! vmfabric network show flat | grep problems.*kernel'
check "the plan is empty" idle
stage "restart" eval "stop_vmfabricd KILL && start_vmfabricd"
check "the plan is empty after a restart" vmfabric plan
finish
