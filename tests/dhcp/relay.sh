#!/bin/bash
# relay.sh: a guest that is a router relays the DHCP of the link behind it, with ISC's relay agents and dnsmasq's. Its
# clients (busybox's over DHCPv4, ISC's over DHCPv6) get, renew and release leases. Namespaces; no libvirt.
. "$(dirname "$0")/../guests/checks.sh"
. "$(dirname "$0")/../guests/namespaces.sh"
install_vmfabric && start_bus && start_vmfabricd || finish

need "a network" vmfabric network create lab
need "its subnets" eval 'vmfabric subnet create lab 10.70.0.0/24 && vmfabric subnet create lab fd00:70::/64'
need "a subnet behind a relay agent" vmfabric subnet create lab 10.71.0.0/24 --name far --relay 10.71.0.1 --gateway 10.71.0.1
need "and an IPv6 one" vmfabric subnet create lab fd00:71::/64 --name far6 --relay fd00:71::1 --lease-time 60
held() { vmfabric --json subnet show "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["host_address"] or "")'; } # SUBNET
check "the host has no address in either" eval '[ -z "$(held far)$(held far6)" ]'
vmfabric port create lab --name router --mac 52:54:00:00:00:01 --address 10.70.0.2 >/dev/null
need "its bridge" wait_for $LONG ip link show vmf-lab

need "a router on it" eval 'attach router 01 vmf-lab && eventually is_bound router'
ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip -n router addr add 10.70.0.2/24 dev eth0 && ip -n router link set eth0 up
ip netns add client && ip link add inner netns router type veth peer name eth0 address 52:54:00:00:01:01 netns client
ip -n router addr add 10.71.0.1/24 dev inner && ip -n router addr add fd00:71::1/64 dev inner nodad
ip -n router link set inner up && ip -n client link set lo up && ip -n client link set eth0 up
ip route replace 10.71.0.0/24 via 10.70.0.2
need "which has its link-local addresses" eval 'wait_for 20 has_link_local router && wait_for 20 has_link_local router inner && wait_for 20 has_link_local client'
ip netns exec router tcpdump --immediate-mode -U -i eth0 -w /run/rig/relayed.pcap 'udp port 67 or udp port 547' 2>/run/rig/tcpdump.err &
need "all that it relays is seen" wait_for 20 grep -q listening /run/rig/tcpdump.err

cat >/run/rig/udhcpc-script <<'S'
#!/bin/sh
echo "$1 ${ip-} $router $serverid" >>/run/rig/client.told
case $1 in
  bound | renew) ip addr replace "$ip/$mask" dev eth0 && ip route replace default via "$router" ;;
  deconfig) ip -4 addr flush dev eth0 ;;
esac
S
chmod 755 /run/rig/udhcpc-script
relay() { ip netns exec router "$@" >>"$RIG_LOGS/relay.log" 2>&1 & agent=$!; } # COMMAND...
client4() { # udhcpc, which renews by SIGUSR1 and releases by SIGUSR2, both by unicast
  : >/run/rig/client.told
  ip netns exec client busybox udhcpc -f -i eth0 -t 3 -T 1 -A 1 -s /run/rig/udhcpc-script >>"$RIG_LOGS/udhcpc.log" 2>&1 &
  client=$!
}
address= # of the client
ends() { kill "$1" && wait_for 20 not kill -0 "$1"; } # PID
seen() { tcpdump -vnr /run/rig/relayed.pcap 2>/dev/null | grep -A"${2-20}" "$1"; } # WHAT [LINES]
leased() { vmfabric lease list lab | grep -qF "$1"; } # ADDRESS
dropped() { vmfabric port show router | grep '^dropped' | grep -q dhcp || { vmfabric port show router; return 1; }; }

relay dhcrelay -4 -d --no-pid -a -iu eth0 -id inner 10.70.0.1
client4
check "port security stops the relay agent, and says so" eventually dropped
check "no client is served" not is_told client bound
vmfabric port set router --allowed-address 10.71.0.0/24 >/dev/null
seen_drops=$(vmfabric port show router | grep '^dropped')
more_dropped() { dropped && [ "$(vmfabric port show router | grep '^dropped')" != "$seen_drops" ]; }
check "allowed addresses are not enough" eval 'eventually more_dropped && not is_told client bound'
need "port security is taken off the router" vmfabric port set router allowed-address= port-security=off

# renews_and_releases WHOSE
renews_and_releases() {
  check "$1 client has a lease" eval 'eventually is_told client bound && address=$(awk "/^bound/ { print \$2; exit }" /run/rig/client.told) && leased "$address"'
  check "of the subnet behind it, not the relay agent's address" eval '[[ $address == 10.71.0.* && $address != 10.71.0.1 ]] || { echo "$address"; false; }'
  check "from the host's address on the other one" grep -q "^bound $address 10.71.0.1 10.70.0.1\$" /run/rig/client.told
  check "host and client reach each other" eval 'ip netns exec client ping -c 1 -W 3 10.70.0.1 && ping -c 1 -W 3 "$address"'
  kill -USR1 "$client"
  check "it renews" eventually is_told client renew
  check "past the relay agent" seen "$address.68 > 10.70.0.1.67"
  kill -USR2 "$client"
  check "and releases, past it too" wait_for 20 not leased "$address"
  ends "$client"
}
renews_and_releases "dhcrelay's"
check "option 82 came back to the relay agent" eval 'seen "10.70.0.1.67 > 10.71.0.1.67" 40 | grep -q "Circuit-ID SubOption 1, length 5: inner"'
ends "$agent"

relay dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --dhcp-relay=10.71.0.1,10.70.0.1 --user=root --pid-file=
client4
renews_and_releases "dnsmasq's"
ends "$agent"

check "without a relay agent nobody is served" eval 'client4; eventually is_told client leasefail && not is_told client bound'
ends "$client"

relay dhcrelay -6 -d --no-pid -I -l inner -u eth0
: >/run/rig/client.told
dhclient_of client 6 -d >>"$RIG_LOGS/dhclient.log" 2>&1 &
address=
check "DHCPv6: dhcrelay's client has a lease" eval 'eventually is_told client BOUND6 && address=$(awk "/^BOUND6/ { print \$2; exit }" /run/rig/client.told) && leased "$address"'
check "of the subnet behind it" eval '[[ $address == fd00:71::* ]]'
check "the relay agent asked all servers of the site" seen 'ff05::1:3.547: .*relay-fwd (linkaddr=fd00:71::1 .*interface-ID'
check "and its interface came back" seen 'relay-reply (linkaddr=fd00:71::1 .*interface-ID 01000000'
check "it renews" eventually is_told client RENEW6
LIMIT=60 dhclient_of client 6 -r >>"$RIG_LOGS/dhclient.log" 2>&1
check "and releases" wait_for 20 not leased "$address"
check "the plan is empty" eventually plan_is_empty
finish
