#!/bin/bash
# A VLAN network with a subnet of ours, and a flat one whose DHCP server is outside.
. "$(dirname "$0")/lib.sh"

stage "the uplink" wire
stage "the internet" internet_host
stage "vmfabricd" start_host "${LAN[@]}"
stage "networks" eval "vmfabric network create v10 --physical lan --vlan 10 && vmfabric network create flat --physical lan &&
  vmfabric network create v20 --physical lan --vlan 20 &&
  vmfabric subnet create v10 10.0.10.0/24 --dhcp --forward nat &&
  vmfabric subnet create v20 10.0.20.0/24 --dhcp --forward nat" >/dev/null
stage "a DHCP server outside" ip -n outside addr add 10.0.1.1/24 dev wire
ip netns exec outside dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --interface=wire --bind-interfaces \
  --dhcp-range=10.0.1.100,10.0.1.150,1h --dhcp-leasefile="$RIG_LOGS/outside.leases" --pid-file= --user=root \
  >"$RIG_LOGS/outside.dnsmasq" 2>&1 &

# lease NAME: a DHCP client in the guest, as long as one lease takes
lease() {
  cat >"$RIG_LOGS/udhcpc" <<'X'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface" && { [ -z "$router" ] || ip route add default via "$router"; }
echo "ip=$ip router=$router dns=$dns domain=$domain"
X
  chmod +x "$RIG_LOGS/udhcpc"
  ip netns exec "$1" busybox udhcpc -f -q -n -t 8 -T 3 -i eth0 -x "hostname:$1" -s "$RIG_LOGS/udhcpc" 2>&1
}
address() { ip -n "$1" -4 -br addr show eth0 | awk '{ print $3 }' | cut -d/ -f1; }

stage "a1" guest a1 "network='v10'"
stage "a2" guest a2 "network='v10'"
stage "b1" guest b1 "network='v20'"
stage "f1" guest f1 "network='flat'"
check "the gateway is on the VLAN's own interface" eval 'ip -br -4 addr show vmf-lan.10 | grep -q 10.0.10.1/24'
check "the uplink carries the VLANs" same "1u 10 20" uplink_vlans
check "the bridge's own place is in just the VLANs with a gateway" same "10 20" uplink_vlans $BRIDGE
check "a1 has a lease of VLAN 10" eval 'lease a1 | grep "ip=10.0.10.*router=10.0.10.1 "'
check "a2 has a lease of VLAN 10" eval 'lease a2 | grep "ip=10.0.10.*router=10.0.10.1 "'
check "b1 has a lease of VLAN 20" eval 'lease b1 | grep "ip=10.0.20.*router=10.0.20.1 "'
check "f1 has a lease from the server outside" eval 'lease f1 | grep "ip=10.0.1.1[0-9][0-9] router=10.0.1.1 "'
check "… who says so too" grep "$(mac_of f1)" "$RIG_LOGS/outside.leases"
check "… and served nobody else" eval '[ "$(wc -l <"$RIG_LOGS/outside.leases")" = 1 ]'
check "a1 reaches a2" pings a1 "$(address a2)"
check "a1 resolves a2's name" eval "ip netns exec a1 busybox nslookup -type=a a2.v10.internet.test 10.0.10.1 >/dev/null 2>&1; ip netns exec a1 busybox nslookup -type=a a2.v10.internal 10.0.10.1 | grep '$(address a2)'"
seen_as() { : >"$RIG_LOGS/internet.peers"; ip netns exec "$1" "$VMFABRIC_RIG/tcp-open" 203.0.113.2 7000 && wait_for 5 grep -qx 203.0.113.1 "$RIG_LOGS/internet.peers"; }
check "a1 reaches the internet as this host" seen_as a1
check "b1 reaches the internet as this host" seen_as b1
check "a1 does not reach b1 through the gateways" silent a1 "$(address b1)"
ip -n internet route add 10.0.10.0/24 via 203.0.113.1
check "the internet does not reach a1" silent internet "$(address a1)"

# DHCP answers guests of this host only, not others in the same VLAN, and never out of the uplink.
stage "a host beyond the uplink" ip -n outside link add wire.10 link wire type vlan id 10
ip -n outside link set wire.10 up
stage "captures" capture outside wire
check "a host beyond the uplink has no lease of ours" \
  says "" ip netns exec outside busybox udhcpc -f -q -n -t 3 -T 1 -i wire.10 -s /bin/true
stage "the end of the captures" end_captures
asked() { tcpdump -nner "$RIG_LOGS/outside.wire.pcap" "$1" 2>/dev/null | grep -c .; }
check "… though it asked" eval '[ $(asked "vlan 10 and udp dst port 67") -ge 1 ]'
check "… and no answer left the uplink" eval '[ $(asked "vlan 10 and udp src port 67") = 0 ]'

# A subnet that goes takes the gateway with it.
for g in a1 a2 b1; do gone $g; done
check "the uplink carries the VLANs with a gateway" same "1u 10 20" uplink_vlans
stage "v20's subnet goes" vmfabric subnet delete v20
check "its gateway is gone" wait_for 30 not ip link show vmf-lan.20
check "… and its VLAN from the uplink" same "1u 10" uplink_vlans
check "… and from the bridge" same "10" uplink_vlans $BRIDGE
check "the plan is empty" idle
finish
