#!/bin/bash
# VLAN and flat networks on one uplink: who hears whom, and with which tags. `brief`: the part that also runs on the stock
# kernel.
. "$(dirname "$0")/lib.sh"
brief=${1-}
kinds=(broadcast multicast unknown) rogues=(none "10 and 1")
[ "$brief" != brief ] || kinds=(broadcast) rogues=("10 and 1") # the stock kernel is emulated, and slow

stage "the uplink" wire
stage "vmfabricd" start_host "${LAN[@]}"
for vid in 10 20; do
  stage "network v$vid" vmfabric network create v$vid --physical lan --vlan $vid --port-security off
  stage "VLAN $vid outside" outside_vlan $vid 10.0.$vid.1/24
done >/dev/null
stage "network flat" vmfabric network create flat --physical lan --port-security off >/dev/null
stage "the flat net outside" ip -n outside addr add 10.0.1.1/24 dev wire
check "no VLAN is on the uplink before a guest needs one, but the flat network's" same "1u" uplink_vlans
stage "a1" guest a1 "network='v10'" 10.0.10.11/24
check "the uplink carries VLAN 10 for its first guest" same "1u 10" uplink_vlans
stage "a2" guest a2 "network='v10'" 10.0.10.12/24
stage "b1" guest b1 "network='v20'" 10.0.10.21/24
stage "b2" guest b2 "vlan='20'" 10.0.10.22/24
stage "f1" guest f1 "network='flat'" 10.0.1.31/24
stage "f2" guest f2 "network='flat'" 10.0.1.32/24
stage "t1" guest t1 "trunk='10,20' native='20'"
stage "t2" guest t2 "trunk='10,30'"
check "the uplink carries exactly the VLANs in use" same "1u 10 20 30" uplink_vlans
check "the plan is empty" idle

check "same VLAN: a1 reaches a2" pings a1 10.0.10.12
check "same VLAN: b1 reaches b2, which a <vlan> of its metadata put there" pings b1 10.0.10.22
check "other VLAN: a1 does not reach b1, in the same subnet" silent a1 10.0.10.21
check "other VLAN: b2 does not reach a2, in the same subnet" silent b2 10.0.10.12
check "flat beside VLANs: f1 reaches f2" pings f1 10.0.1.32
check "flat beside VLANs: f1 reaches the world outside, untagged" pings f1 10.0.1.1
check "a1 reaches VLAN 10 outside" pings a1 10.0.10.1
ip -n b1 addr add 10.0.20.21/24 dev eth0
check "b1 reaches VLAN 20 outside" pings b1 10.0.20.1

all() { local ns; for ns in a1 a2 b1 b2 f1 f2 t1 t2; do "$@" $ns eth0 || return; done; "$@" outside wire; }
stage "captures" all capture
# Each from where it is, to all, to a group and to somebody whom no bridge knows.
for sender in a1 b1 f1; do
  send $sender eth0 ff:ff:ff:ff:ff:ff "from-$sender-broadcast"
  send $sender eth0 01:00:5e:01:02:03 "from-$sender-multicast"
  send $sender eth0 02:00:00:00:00:99 "from-$sender-unknown"
done
send t1 eth0 ff:ff:ff:ff:ff:ff from-t1-untagged
send t1 eth0 ff:ff:ff:ff:ff:ff from-t1-in-10 10
send t1 eth0 ff:ff:ff:ff:ff:ff from-t1-in-30 30
send t1 eth0 ff:ff:ff:ff:ff:ff from-t1-in-flat 1
send t1 eth0 ff:ff:ff:ff:ff:ff from-t1-in-4094 4094
send t2 eth0 ff:ff:ff:ff:ff:ff from-t2-untagged
send t2 eth0 ff:ff:ff:ff:ff:ff from-t2-in-30 30
send a1 eth0 ff:ff:ff:ff:ff:ff from-a1-in-20 20 # an access port is no way into other VLANs
send a1 eth0 ff:ff:ff:ff:ff:ff from-a1-in-10 10
send outside wire ff:ff:ff:ff:ff:ff outside-in-10 10
send outside wire ff:ff:ff:ff:ff:ff outside-in-30 30
send outside wire ff:ff:ff:ff:ff:ff outside-in-40 40
send outside wire ff:ff:ff:ff:ff:ff outside-untagged
stage "the end of the captures" end_captures

heard_by() { # TEXT NAMESPACE...: these hear it and no other guest does
  local text=$1 ns
  shift
  for ns in a1 a2 b1 b2 f1 f2 t1 t2; do
    [ "from-$ns" = "${text:0:7}" ] && continue
    case " $* " in
      *" $ns "*) saw $ns eth0 "$text" || { echo "$ns did not hear $text"; return 1; } ;;
      *) unseen $ns eth0 "$text" || { echo "$ns heard $text"; return 1; } ;;
    esac
  done
}
for kind in "${kinds[@]}"; do
  check "$kind of VLAN 10 is heard there, by trunks of it, and by nobody else" heard_by "from-a1-$kind" a2 t1 t2
  check "$kind of VLAN 20 is heard there, by the trunk whose native VLAN it is, and by nobody else" heard_by "from-b1-$kind" b2 t1
  check "$kind of the flat network is heard there, and by nobody else" heard_by "from-f1-$kind" f2
  check "$kind of VLAN 10 leaves the uplink with tag 10" same "10" tags outside wire "from-a1-$kind"
  check "$kind of VLAN 20 leaves the uplink with tag 20" same "20" tags outside wire "from-b1-$kind"
  check "$kind of the flat network leaves the uplink untagged" same "none" tags outside wire "from-f1-$kind"
done
check "the trunk sees VLAN 10 tagged" same "10" tags t1 eth0 from-a1-broadcast
check "the trunk sees its native VLAN untagged" same "none" tags t1 eth0 from-b1-broadcast
check "an access port sees no tag" same "none" tags a2 eth0 from-a1-broadcast
check "what the trunk sends untagged is in its native VLAN" heard_by from-t1-untagged b1 b2
check "… and has its tag on the uplink" same "20" tags outside wire from-t1-untagged
check "what the trunk sends in VLAN 10 is there" heard_by from-t1-in-10 a1 a2 t2
check "the trunk cannot send in a VLAN that it lacks, though another port and the uplink have it" heard_by from-t1-in-30
check "… nor does the uplink see it" unseen outside wire from-t1-in-30
check "the trunk cannot send in the flat network by its tag" heard_by from-t1-in-flat
check "… nor in a VLAN that nobody has" unseen outside wire from-t1-in-4094
check "a trunk without native VLAN sends nothing untagged" heard_by from-t2-untagged
check "… not out of the uplink either" unseen outside wire from-t2-untagged
check "a trunk's VLAN without a network reaches the uplink, tagged" same "30" tags outside wire from-t2-in-30
check "an access port cannot send in another VLAN" heard_by from-a1-in-20
check "… not out of the uplink either" unseen outside wire from-a1-in-20
check "VLAN 10 from outside is heard in VLAN 10" heard_by outside-in-10 a1 a2 t1 t2
check "VLAN 30 from outside is heard by the trunk that has it" heard_by outside-in-30 t2
check "a VLAN that nobody uses is not heard by anybody" heard_by outside-in-40
check "what comes untagged from outside is heard in the flat network alone" heard_by outside-untagged f1 f2

# --- Deny by default: somebody puts a NIC on our bridge by hand ---
rogue() {
  machine rogue 10.0.10.99/24 && ip link set rogue master $BRIDGE up
}
check "the bridge gives new ports no VLAN: vlan_default_pvid 0, vlan_filtering 1" \
  eval "ip -j -d link show $BRIDGE | python3 -c 'import json, sys
data = json.load(sys.stdin)[0][\"linkinfo\"][\"info_data\"]
assert (data[\"vlan_default_pvid\"], data[\"vlan_filtering\"]) == (0, 1), data'"
stage "a NIC put on the bridge by hand" rogue
check "vmfabric has nothing to do about it" idle
for vlans in "${rogues[@]}"; do
  if [ "$vlans" != none ]; then # the bridge's own VLANs, too, are opened by hand
    stop_vmfabricd
    bridge vlan add vid 10 pvid untagged dev rogue && bridge vlan add vid 1 dev rogue
  fi
  stage "captures" eval "capture rogue eth0 && capture a2 eth0 && capture f2 eth0 && capture outside wire"
  send rogue eth0 ff:ff:ff:ff:ff:ff from-rogue
  send rogue eth0 ff:ff:ff:ff:ff:ff from-rogue-in-10 10
  send rogue eth0 ff:ff:ff:ff:ff:ff from-rogue-in-1 1
  send rogue eth0 "$(mac_of a2)" from-rogue-to-a2
  send a1 eth0 ff:ff:ff:ff:ff:ff to-all-of-10
  send f1 eth0 ff:ff:ff:ff:ff:ff to-all-flat
  send a1 eth0 "$(mac_of rogue)" to-rogue
  stage "the end of the captures" end_captures
  check "(VLANs of the rogue: $vlans) VLAN 10 goes on" saw a2 eth0 to-all-of-10
  check "(VLANs of the rogue: $vlans) nobody hears a NIC that is not bound" \
    eval "unseen a2 eth0 from-rogue && unseen f2 eth0 from-rogue && unseen outside wire from-rogue"
  check "(VLANs of the rogue: $vlans) it hears nobody" eval "unseen rogue eth0 to-all && unseen rogue eth0 to-rogue"
done
stage "vmfabricd again" start_vmfabricd
no_vlans() { [ -z "$(uplink_vlans rogue)" ]; }
check "VLANs given to it by hand are taken away" wait_for 30 no_vlans
gone rogue
[ "$brief" != brief ] || finish

# --- A guest moves between VLANs: its port is made anew, while others talk ---
flood() { ip netns exec "$1" "$HERE/send-frame" -f eth0 ff:ff:ff:ff:ff:ff "$2" & floods+=($!); }
end_floods() { kill "${floods[@]}"; wait "${floods[@]}" 2>/dev/null; floods=(); }
floods=()
stage "mv" guest mv "network='v10'" 10.0.10.40/24
flood a1 flood-in-10
flood b1 flood-in-20
heard_in() { # the mover's capture, as the VLANs of what it heard, in order and without repetition
  tcpdump -nnAr "$RIG_LOGS/mv.eth0.pcap" 2>/dev/null | grep -ao 'flood-in-..' | uniq | paste -sd' '
}
capture_move() { capture mv eth0 && capture a2 eth0 && capture b2 eth0 && capture outside wire; }
stage "captures" capture_move
flood mv from-mv-before
stage "it is heard in VLAN 10" wait_for 30 saw a2 eth0 from-mv-before
stage "it hears VLAN 10" wait_for 30 saw mv eth0 flood-in-10
stage "the move" hook mv start "network='v20'"
stage "it hears VLAN 20" wait_for 30 saw mv eth0 flood-in-20
stage "it is heard in VLAN 20" wait_for 30 saw b2 eth0 from-mv
flood mv from-mv-after
stage "it is heard in VLAN 20 after" wait_for 30 saw b2 eth0 from-mv-after
end_floods
stage "the end of the captures" end_captures
check "while it moves from VLAN 10 to 20, it never hears VLAN 10 again" same "flood-in-10 flood-in-20" heard_in
check "after the move it is not heard in VLAN 10" unseen a2 eth0 from-mv-after
check "after the move its frames leave with tag 20 only" same "20" tags outside wire from-mv-after
check "the plan is empty after the move" idle

# The same, the guest restarted with another definition: another tap of the same name, on the bridge before `start`.
flood a1 flood-in-10
flood b1 flood-in-20
stage "captures" eval "capture a2 eth0 && capture b2 eth0 && capture outside wire"
gone mv
stage "its new definition" hook mv prepare "network='v10'"
stage "the new tap" machine mv 10.0.10.40/24
stage "captures" capture mv eth0
ip link set mv master $BRIDGE up
flood mv from-mv-again
stage "it starts in VLAN 10" hook mv start "network='v10'"
stage "it hears VLAN 10" wait_for 30 saw mv eth0 flood-in-10
stage "it is heard in VLAN 10" wait_for 30 saw a2 eth0 from-mv-again
end_floods
stage "the end of the captures" end_captures
check "a guest that comes back into VLAN 10 never hears VLAN 20" same "flood-in-10" heard_in
check "… nor is heard there" unseen b2 eth0 from-mv
check "… and its frames leave with tag 10 only" same "10" tags outside wire from-mv-again
check "the uplink carries what is in use" same "1u 10 20 30" uplink_vlans

# --- What goes, goes ---
gone t2
check "VLAN 30 leaves the uplink with its last guest" same "1u 10 20" uplink_vlans
gone t1 && gone mv && gone a1
check "VLAN 10 stays while a guest is in it" same "1u 10 20" uplink_vlans
gone a2
check "VLAN 10 leaves the uplink with its last guest" same "1u 20" uplink_vlans
gone b1 && gone b2 && gone f1 && gone f2
check "when all are gone, nothing but the flat network's VLAN is left" same "1u" uplink_vlans
check "the plan is empty" idle
for network in v10 v20 flat; do vmfabric network delete $network; done
bridge_is_gone() { not ip link show $BRIDGE && [ -z "$(ip -j link show eth1 | grep -o '"ifalias":"[^"]*"')" ]; }
check "without networks the bridge goes, and the uplink is as it was" wait_for 30 bridge_is_gone
finish
