# shellcheck shell=bash
# lib.sh: what the scripts of tests/neighbours share: guests that are network namespaces, and a container of Docker's kind.
. "${VMFABRIC_RIG:?run me by: cargo test -- --ignored}/../guests/checks.sh"
TEST_TIMEOUT=5

# namespace NAME BRIDGE: a namespace whose eth0 is on the bridge
namespace() {
  ip netns add "$1" && ip -n "$1" link set lo up &&
    ip link add "t-$1" type veth peer name eth0 netns "$1" &&
    ip link set "t-$1" master "$2" up && ip -n "$1" link set eth0 up
}

# dhcp NAME: asks for a lease, and takes what is offered
dhcp() {
  cat >"$RIG_LOGS/take-lease" <<'S'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr flush dev "$interface"
ip addr add "$ip/$mask" dev "$interface"
ip route replace default via "$router"
S
  chmod 755 "$RIG_LOGS/take-lease"
  ip netns exec "$1" busybox udhcpc -i eth0 -n -q -f -t 20 -T 1 -s "$RIG_LOGS/take-lease"
}
address() { ip -n "$1" -4 -o addr show dev eth0 | awk '{ sub("/.*", "", $4); print $4 }'; }

pings_from() { ip netns exec "$1" ping -c 2 -i 0.3 -W 5 "$2"; }                # NAMESPACE ADDRESS
quick_ping() { ip netns exec "$1" ping -c 1 -W 1 "$2"; }
resolves() { ip netns exec "$1" dig +time=2 +tries=2 +short "@$2" www.internet.test | grep -q 203.0.113.2; }
opens() { timeout $TEST_TIMEOUT ip netns exec "$1" "$VMFABRIC_RIG/tcp-open" "$2" "$3"; } # NAMESPACE ADDRESS PORT

# listen NAMESPACE PORT
listen() {
  : >"$RIG_LOGS/$1.peers"
  ip netns exec "$1" "$VMFABRIC_RIG/peer-server" "$2" "$RIG_LOGS/$1.peers" >"$RIG_LOGS/$1.peer.log" 2>&1 &
  wait_for 10 ip netns exec "$1" "$VMFABRIC_RIG/tcp-open" 127.0.0.1 "$2"
}

# guests: two on the network nat, with leases
guests() {
  namespace web vmf-nat && namespace db vmf-nat && dhcp web && dhcp db && listen db 80
}

# guests_work WHEN: all that guests are promised
guests_work() {
  check "$1: a guest gets its lease" dhcp web
  check "$1: it resolves names" eventually resolves web 192.168.123.1
  check "$1: it pings the gateway" eventually pings_from web 192.168.123.1
  check "$1: it reaches the outside" eventually opens web 203.0.113.2 7000
  check "$1: and its neighbour" eventually opens web "$(address db)" 80
}

# br_netfilter 0|1: whether iptables sees bridged frames
br_netfilter() {
  local parameter
  for parameter in iptables ip6tables; do
    [ -e "/proc/sys/net/bridge/bridge-nf-call-$parameter" ] || return
    echo "$1" >"/proc/sys/net/bridge/bridge-nf-call-$parameter" || return
  done
}

clean_up_but_libvirt() { fails_saying "libvirt keeps our networks" vmfabricd --clean-up; }
