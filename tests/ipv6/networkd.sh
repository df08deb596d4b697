#!/bin/bash
# networkd.sh: a router that runs systemd-networkd is delegated a prefix, and gives its own link a /64 of it. No libvirt.
. "$(dirname "$0")/../guests/checks.sh"
. "$(dirname "$0")/../guests/namespaces.sh"
install_vmfabric && start_bus && start_vmfabricd || finish

need "a network" vmfabric network create lab
need "a subnet that delegates /60s" vmfabric subnet create lab 2001:db8:7::/64 --forward routed --pd-block 2001:db8:8000::/56 --pd-length 60 --lease-time 60
need "a port for the router" vmfabric port create lab --name router --mac 52:54:00:00:00:01
need "its bridge" wait_for $LONG ip link show vmf-lab
need "the router" eval 'attach router 01 vmf-lab && eventually is_bound router'
ip netns add host && ip link add inner netns router type veth peer name eth0 netns host
ip -n host link set lo up && ip -n host link set eth0 up

# It is run in folders of its own; with /sys mounted read-only it does not wait for udev.
cat >/run/rig/networkd <<'S'
set -e
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network: /run/systemd/netif
cat >/run/systemd/network/outer.network <<'N'
[Match]
Name=eth0
[Network]
DHCP=ipv6
IPv6AcceptRA=yes
[DHCPv6]
PrefixDelegationHint=::/60
N
cat >/run/systemd/network/inner.network <<'N'
[Match]
Name=inner
[Network]
DHCPPrefixDelegation=yes
IPv6SendRA=yes
IPForward=ipv6
[DHCPPrefixDelegation]
UplinkInterface=eth0
SubnetId=5
Token=::1
N
exec /lib/systemd/systemd-networkd
S
networkd() {
  nsenter --net=/run/netns/router unshare --mount env SYSTEMD_LOG_LEVEL=debug bash /run/rig/networkd >>"$RIG_LOGS/networkd.log" 2>&1 &
  router=$!
}
inside=2001:db8:8000:5::1
has_inside() { ip -n router -6 addr show dev inner | grep -v tentative | grep -qF "$inside/64"; }
has_outside() { ip -n router -6 -o addr show dev eth0 scope global -tentative | grep -q 2001:db8:7::; }
routed() { ip -6 route show 2001:db8:8000::/60 | grep -q 'via fe80::5054:ff:fe00:1 dev vmf-lab'; }
listed() { vmfabric lease list lab | grep -qF 2001:db8:8000::/60; }
guest_of_it() { ip -n host -6 -o addr show dev eth0 scope global -tentative | awk '{ sub("/.*", "", $4); print $4; exit }'; }
pings() { ip netns exec "$1" ping -6 -c 1 -W 3 "$2"; } # NAMESPACE ADDRESS
expires() { vmfabric --json lease list lab | python3 -c 'import json, sys; print(max(l["expires"] for l in json.load(sys.stdin) if l["prefix_length"] == 60))'; }

networkd
check "it has its own address" eventually has_outside
need "and gives its link a /64 of its prefix" eventually has_inside
check "the lease is listed" listed
check "the host routes the prefix to it" eventually routed
check "the host reaches the router's far side" eventually ping -6 -c 1 -W 3 "$inside"
check "who is behind it makes an address of the /64" eventually eval '[[ $(guest_of_it) == 2001:db8:8000:5:* ]]'
far=$(guest_of_it)
check "the host reaches it" eventually ping -6 -c 1 -W 3 "$far"
check "and it the host" pings host 2001:db8:7::1
# The host has a way back, so that what does not arrive was stopped.
ip -n host addr add 2001:db8:9000::1/128 dev eth0 nodad && ip -n router route add 2001:db8:9000::/64 dev inner &&
  ip route add 2001:db8:9000::/64 via fe80::5054:ff:fe00:1 dev vmf-lab
from_elsewhere() { ip netns exec host ping -6 -c 1 -W 2 -I 2001:db8:9000::1 2001:db8:7::1; }
check "nobody behind it speaks from elsewhere" not from_elsewhere
vmfabric port set router --allowed-address 2001:db8:9000::/64 >/dev/null
check "but from what its port is allowed" eventually from_elsewhere
vmfabric port set router allowed-address= >/dev/null
ip route del 2001:db8:9000::/64 dev vmf-lab
check "the plan is empty" eventually plan_is_empty

before=$(expires)
check "the daemon is stopped: the route stays" eval 'stop_vmfabricd && routed && ping -6 -c 1 -W 3 "$far"'
check "and started: too" eval 'start_vmfabricd && routed && listed && ping -6 -c 1 -W 3 "$far"'
check "the plan is empty" eventually plan_is_empty
renewed() { grep -q 'DHCPv6 client: Sent Renew' "$RIG_LOGS/networkd.log" && [ "$(expires)" -gt "$before" ]; }
check "networkd renews" eventually renewed
check "with the same prefix" eval 'has_inside && routed'

kill -KILL "$router"
wait "$router" 2>/dev/null
networkd
check "started anew it has the same prefix" eval 'eventually has_inside && eventually listed && [ "$(vmfabric lease list lab | grep -c /60)" = 1 ]'
check "the host reaches it" eventually ping -6 -c 1 -W 3 "$inside"

# That of Debian 12 releases nothing (SendRelease= came later).
kill "$router"
check "networkd ends" wait_for 20 not kill -0 "$router"
check "its prefix expires" wait_for $((LONG + 60)) not listed
check "and the host's route goes" eventually not routed
check "the plan is empty" eventually plan_is_empty
finish
