#!/bin/bash
# The daemon stops, is killed, and starts again, under VLAN guests that ping without a pause.
. "$(dirname "$0")/lib.sh"

stage "the uplink" wire
stage "VLAN 10 outside" outside_vlan 10 10.0.10.1/24
stage "the flat net outside" ip -n outside addr add 10.0.1.1/24 dev wire
stage "vmfabricd" start_host "${LAN[@]}"
stage "networks" eval "vmfabric network create v10 --physical lan --vlan 10 && vmfabric network create flat --physical lan &&
  vmfabric subnet create v10 10.0.110.0/24 --forward nat" >/dev/null
stage "a1" guest a1 "network='v10'" 10.0.10.11/24
stage "a2" guest a2 "network='v10'" 10.0.10.12/24
stage "f1" guest f1 "network='flat'" 10.0.1.31/24
stage "t1" guest t1 "trunk='10,20' native='10'" 10.0.10.13/24
stage "the gateway" ip -n a1 addr add 10.0.110.11/24 dev eth0
for way in "a1 10.0.10.12" "a1 10.0.10.1" "a2 10.0.110.1" "f1 10.0.1.1" "t1 10.0.10.11"; do
  stage "$way before" eval "ip -n a2 addr replace 10.0.110.12/24 dev eth0; pings $way"
done

state() { bridge -j vlan show; nft list table bridge vmfabric | sed '/limit rate over 1000.second burst/d; s/counter.*/counter/'; nft list table inet vmfabric; }
before=$(state) && taken=$(ip -j -d link show $BRIDGE | grep -o '"address":"[^"]*"')
# The kernel's own word on every link and VLAN that changes, while the daemon comes and goes.
ip -o monitor link >"$RIG_LOGS/links" &
stdbuf -oL bridge monitor vlan >"$RIG_LOGS/vlans" &
pingers=() ways=("a1 10.0.10.12" "a1 10.0.10.1" "a2 10.0.110.1" "f1 10.0.1.1" "t1 10.0.10.11")
for i in "${!ways[@]}"; do
  read -r from to <<<"${ways[i]}"
  ip netns exec "$from" ping -i 0.05 "$to" >"$RIG_LOGS/ping.$i" &
  pingers+=($!)
done
running() { local i; for i in "${!ways[@]}"; do grep -q 'icmp_seq=5 ' "$RIG_LOGS/ping.$i" || return; done; }
stage "pings run" wait_for 30 running
for signal in TERM KILL KILL; do
  stage "stop ($signal)" stop_vmfabricd $signal
  # The kernel goes on alone for a while: as many pings as take a second.
  stage "start" start_vmfabricd
  check "after SIG$signal and a start the plan is empty at once" vmfabric plan
done
check "kernel state is the same" same "$before" state
check "the bridge has the same address" same "$taken" eval "ip -j -d link show $BRIDGE | grep -o '\"address\":\"[^\"]*\"'"
kill -INT "${pingers[@]}"
wait "${pingers[@]}"
# (Those without a qdisc are about a port of a bridge: one comes 15 s after it joined, when its forward delay is over.)
check "no link of guests or uplink changed" eval '! grep qdisc "$RIG_LOGS/links" | grep -E "(a1|a2|f1|t1|eth1|vmf-lan)[@:]"'
check "no VLAN of theirs changed" eval '! grep . "$RIG_LOGS/vlans"'
for i in "${!ways[@]}"; do
  check "${ways[i]/ / to }: $(grep -o '[0-9]* packets transmitted, [0-9]* received' "$RIG_LOGS/ping.$i")" grep ' 0% packet loss' "$RIG_LOGS/ping.$i"
done
check "guests are active" same "4" eval "vmfabric port list | grep -c ' active'"
gone t1
check "VLAN 20 leaves with the trunk" same "1u 10" uplink_vlans
check "… as the kernel tells" wait_for 10 grep -q eth1 "$RIG_LOGS/vlans"
finish
