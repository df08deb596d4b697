#!/bin/bash
# ipv6.sh: IPv6 networks as guests see them: addresses by DHCPv6 and by advertisement, routed and behind NAT, names; on a
# host that learnt its own default route from advertisements, which it keeps. Guests are network namespaces. No libvirt.
. "$(dirname "$0")/../guests/checks.sh"
. "$(dirname "$0")/../guests/namespaces.sh"
install_vmfabric && start_bus || finish
DB=/var/lib/vmfabric/vmfabric.db
conf() { cat "/proc/sys/net/ipv6/conf/$1/$2"; }
is() { [ "$(conf "$1" "$2")" = "$3" ] || { echo "$1 $2: $(conf "$1" "$2"), not $3"; return 1; }; }

# The outside: a router that advertises itself on `wan0` every second, and a link of somebody else's, `other0`.
ip netns add wan && ip netns add other
ip link add wan0 type veth peer name eth0 netns wan
ip link add other0 type veth peer name eth0 netns other
for ns in wan other; do ip netns exec $ns sysctl -qw net.ipv6.conf.all.forwarding=1; ip -n $ns link set lo up; done
ip -n wan addr add 2001:db8:ffff::1/64 dev eth0 nodad
ip -n wan link set eth0 up && ip link set wan0 up
ip -n other addr add 2001:db8:eeee::2/64 dev eth0 nodad
ip -n other link set eth0 up && ip link set other0 up
ip addr add 2001:db8:eeee::1/64 dev other0 nodad
ip -n other route add default via 2001:db8:eeee::1
cat >/run/rig/advertise.py <<'P'
import ipaddress, socket, struct, time
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
index = socket.if_nametoindex("eth0")
prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + ipaddress.ip_address("2001:db8:ffff::").packed
while True:
    try:
        s.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix, ("ff02::1", 0, 0, index))
    except OSError:
        pass
    time.sleep(1)
P
ip netns exec wan python3 /run/rig/advertise.py &
learnt() { ip -6 route show default | grep -q "dev wan0 proto ra"; }
need "the host learns its default route" eventually learnt
wan=$(ip -6 -o addr show dev wan0 scope global | awk '{ sub("/.*", "", $4); print $4; exit }')
before=$(ip -6 route show default | sed 's/ expires [0-9]*sec//')

need "the daemon starts" start_vmfabricd
check "nothing needs IPv6 yet" eval 'is all forwarding 0 && is wan0 accept_ra 1'
need "a network" vmfabric network create lab
check "a routed subnet" vmfabric subnet create lab 2001:db8:7::/64 --forward routed --pd-block 2001:db8:8000::/56
check "IPv6 is forwarded" eventually is all forwarding 1
check "the host's own links are hosts still" eval 'is wan0 forwarding 0 && is other0 forwarding 0 && is default forwarding 0'
check "wan0 goes on listening" is wan0 accept_ra 2
check "it was never without its default route" eval '[ "$(ip -6 route show default | sed "s/ expires [0-9]*sec//")" = "$before" ]'
bridge=$(bridge_of lab)
check "guests' advertisements are nothing to it" is "$bridge" accept_ra 0
ip -n wan route add 2001:db8:7::/64 via "$wan"

guest() { # NAME NUMBER NETWORK [ARG...]: a port, and its guest
  local name=$1 number=$2 network=$3
  shift 3
  vmfabric port create "$network" --name "$name" --dns-name "$name" --mac "52:54:00:00:00:$number" "$@" || return
  attach "$name" "$number" "$(bridge_of "$network")" && eventually is_bound "$name" && ip -n "$name" link set eth0 up
}
lease6() { # NAME [ARG...]: runs dhclient until it has its address
  wait_for 20 has_link_local "$1" && LIMIT=60 dhclient_of "$1" 6 -1 "${@:2}"
}
address() { ip -n "$1" -6 -o addr show dev eth0 scope global -tentative | awk '{ sub("/.*", "", $4); print $4; exit }'; }
pings() { ip netns exec "$1" ping -6 -c 2 -i 0.2 -W 3 "$2"; } # NAMESPACE ADDRESS
asks() { [ "$(ip netns exec "$1" dig +short +time=3 "@$2" "${@:3}")" != "" ] && ip netns exec "$1" dig +short "@$2" "${@:3}"; }

need "guest a" guest a 0a lab
need "guest b" guest b 0b lab
usable() { [ -n "$(address "$1")" ]; }
check "a has its address by DHCPv6" eval 'lease6 a -N -P && eventually usable a'
check "b too" eval 'lease6 b && eventually usable b'
a=$(address a) b=$(address b)
check "those that their ports have" eval 'vmfabric port show a | grep -qF "$a" && vmfabric port show b | grep -qF "$b"'
check "their leases are listed" eval 'vmfabric lease list | grep -F "$a" && vmfabric lease list | grep -F "$b"'
routed() { ip -n "$1" -6 route show default | grep -q "via fe80::.* proto ra"; }
delegated() { ip -6 route show 2001:db8:8000::/64 | grep -q "via fe80::5054:ff:fe00:a dev $bridge"; }
check "a prefix was delegated to a, and leads there" eventually delegated
check "it is listed" eval 'vmfabric lease list | grep -qF 2001:db8:8000::/64'
ip -n wan route add 2001:db8:8000::/56 via "$wan"
ip -n a addr add 2001:db8:8000::1/128 dev lo
check "what is behind a is reached" pings wan 2001:db8:8000::1
check "they know their router" eval 'eventually routed a && eventually routed b'
check "they ping each other" pings a "$b"
check "and their gateway" pings a 2001:db8:7::1
check "and the outside" pings a 2001:db8:ffff::1
check "the outside pings them" pings wan "$b"
check "a finds b by name, over IPv6" eval '[ "$(asks a 2001:db8:7::1 b.lab.internal AAAA)" = "$b" ]'
check "and by address" eval 'asks a 2001:db8:7::1 -x "$b" | grep -qx "b.lab.internal."'
spoofs() { ip -n a addr add 2001:db8:7::bad/128 dev eth0 nodad; not ip netns exec a ping -6 -c 1 -W 1 -I 2001:db8:7::bad 2001:db8:7::1; }
check "a cannot take another address" spoofs
ip -n a addr del 2001:db8:7::bad/128 dev eth0
advertises() { ip netns exec a timeout 3 python3 /run/rig/advertise.py; not eval 'ip -n b -6 addr | grep -q 2001:db8:ffff'; }
check "nor play the router" advertises

need "a network behind NAT, whose guests make their addresses" vmfabric network create home
check "its subnet" vmfabric subnet create home fd00:77::/64 --forward nat --ipv6-mode slaac
need "guest c" guest c 0c home
has() { [ "$(address c)" = fd00:77::5054:ff:fe00:c ]; }
check "c makes its address" eventually has
check "its port has the same" eval 'vmfabric port show c | grep -qF fd00:77::5054:ff:fe00:c'
check "c pings the outside, which knows no way back" eval 'eventually routed c && pings c 2001:db8:ffff::1'
check "its name is an AAAA" eval '[ "$(asks c fd00:77::1 c.home.internal AAAA)" = fd00:77::5054:ff:fe00:c ]'
ip -n wan route add fd00:77::/64 via "$wan"
check "nobody comes in from the outside" not pings wan fd00:77::5054:ff:fe00:c
check "nor from a guest on another network" not pings a fd00:77::5054:ff:fe00:c

# The host forwards for guests, and for nobody else.
ip -n wan route add 2001:db8:eeee::/64 via "$wan"
check "the outside reaches no link of others through this host" not pings wan 2001:db8:eeee::2
check "the host itself does" ping -6 -c 1 -W 2 2001:db8:eeee::2

ip netns add later && ip link add later0 type veth peer name eth0 netns later && ip link set later0 up &&
  ip addr add 2001:db8:dddd::1/64 dev later0 nodad && ip -n later link set eth0 up && ip -n later addr add 2001:db8:dddd::2/64 dev eth0 nodad &&
  ip -n later route add default via 2001:db8:dddd::1 && ip -n wan route add 2001:db8:dddd::/64 via "$wan"
check "a link of others that comes later: the host itself reaches it" wait_for 20 ping -6 -c 1 -W 2 2001:db8:dddd::2
check "the outside does not" not pings wan 2001:db8:dddd::2
ip netns exec wan tcpdump --immediate-mode -l -n -i eth0 'icmp6 and src 2001:db8:dddd::2' >/run/rig/later 2>/run/rig/later.err &
check "nothing that it sends gets there" eval 'wait_for 20 grep -q listening /run/rig/later.err && not pings later 2001:db8:ffff::1 && [ ! -s /run/rig/later ] || { cat /run/rig/later; false; }'
kill %+ 2>/dev/null

check "the plan is empty" eventually plan_is_empty
check "the daemon is restarted" eval 'stop_vmfabricd && routed a && start_vmfabricd'
check "it finds nothing to do" plan_is_empty
check "guests did not notice" eval 'routed a && routed c && pings a "$b" && vmfabric lease list | grep -qF "$a"'

gives_up() { LIMIT=60 dhclient_of a 6 -r -N -P; eventually not delegated && vmfabric lease list | not grep -F 2001:db8:8000::/64; }
check "a gives its prefix up, and nothing leads there" gives_up

check "no forwarding for lab any more" vmfabric subnet set lab forward=none gateway=
check "its guests lose their router" eventually eval 'not routed a && not routed b'
check "and home's do not" routed c
for name in a b c; do
  ip netns pids $name | xargs -r kill
  ip netns del $name
done
for number in 0a 0b 0c; do wait_for 10 eval "not ip link show vnet$number"; done
for name in a b c; do eventually vmfabric port delete $name; done
check "the networks go" eval 'vmfabric network delete lab && vmfabric network delete home'
check "forwarding is what it was" eventually is all forwarding 0
check "and wan0's listening" eventually is wan0 accept_ra 1
check "with its default route all the time" learnt
remembered() { python3 -c 'import sqlite3, sys; sys.exit(not sqlite3.connect("file:/var/lib/vmfabric/vmfabric.db?mode=ro", uri=True).execute("SELECT 1 FROM memo WHERE key LIKE ?", ("sysctl:net/ipv6/%",)).fetchall())'; }
check "nothing is remembered of it" eventually not remembered
finish
