#!/bin/bash
# held.sh: where kernel and libnftables let one process hold its tables, nobody else changes ours while the daemon runs, and
# they outlive it. For a host with Linux 6.9 and libnftables 1.1 (private-host -r).
. "$(dirname "$0")/checks.sh"
LONG=240 # a guest on a machine that is emulated itself
stage
A=52:54:00:73:00:01
refused() { local output; output=$(nft "$@" 2>&1) && { echo "it was done"; return 1; }; grep 'Operation not permitted' <<<"$output"; }
held() { nft list table "$1" vmfabric | grep -F 'flags owner,persist'; }
left() { nft list table "$1" vmfabric | grep -F 'flags persist'; }
# All but what packets fill
tables() {
  { nft -s -t list table bridge vmfabric; nft -s -t list table inet vmfabric; nft list set bridge vmfabric macs
    nft list set bridge vmfabric addresses4; nft list set inet vmfabric nat4; } | sed 's/ # progname.*//'
}

need "a guest" eval "define_guest a $A network=nat && virsh -q start a"
need "it has its lease" wait_lease a $LONG
need "both tables are held" eval "held bridge && held inet"
check "the plan is empty" eventually plan_is_empty
tables >"$RIG_LOGS/before"
nft add table inet other
check "nft flush ruleset" nft flush ruleset
check "… takes others' tables away" eval '! nft list table inet other'
check "… and none of ours: not a rule is missing" cmp "$RIG_LOGS/before" <(tables)
check "nobody deletes one" refused delete table bridge vmfabric
check "nor empties a chain" refused flush chain bridge vmfabric antispoof
check "nor puts a rule in front" refused insert rule bridge vmfabric egress accept
check "nor takes an element away" refused delete element inet vmfabric gateways '{ "vmf-nat" }'
check "nor puts it to sleep" refused add table bridge vmfabric '{ flags dormant; }'
check "nothing was to be mended" eval '! grep -E "somebody (changed|deleted)" "$RIG_LOGS/vmfabricd.log"'

check "the daemon itself goes on: a port's filters" eval 'vmfabric port set $A --isolated on && eventually plan_is_empty && vmfabric port set $A isolated= && eventually plan_is_empty'
check "a network" eval 'vmfabric network create more && vmfabric subnet create more 10.9.0.0/24 --dhcp && eventually plan_is_empty'
check "a second NIC, plugged in" eval 'nic_xml 52:54:00:73:00:02 network=nat >"$RIG_LOGS/nic.xml" && virsh -q attach-device a "$RIG_LOGS/nic.xml" && eventually port_is 52:54:00:73:00:02 status active'
check "both are held still" eval "held bridge && held inet"

tables >"$RIG_LOGS/before"
check "the daemon is killed" stop_vmfabricd KILL
check "the tables stay as they are" cmp "$RIG_LOGS/before" <(tables | sed 's/flags persist/flags owner,persist/')
check "… held by nobody" eval "left bridge && left inet"
check "it starts again" start_vmfabricd
check "and holds them, as they are" eval 'held bridge && held inet && cmp "$RIG_LOGS/before" <(tables)'
check "the plan is empty" eventually plan_is_empty
check "the guest has its network" ping -c 2 -W 20 "$(guest_ip a)"
check "nobody deletes one" refused delete table inet vmfabric

check "the daemon is stopped" stop_vmfabricd
check "then an administrator may delete them" eval 'nft delete table bridge vmfabric && nft delete table inet vmfabric'
nft add table bridge vmfabric '{ chain strange { type filter hook input priority 0; accept; }; }' && nft add table inet vmfabric
check "it starts over tables that anybody may change" start_vmfabricd
check "which are made anew, held" eval 'held bridge && held inet && ! nft list chain bridge vmfabric strange && nft list chain bridge vmfabric antispoof'
check "the plan is empty at the end" eventually plan_is_empty
finish
