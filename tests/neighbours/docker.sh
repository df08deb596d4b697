#!/bin/bash
# docker.sh nft|legacy: the rules that Docker installs, and guests that work all the same. Docker's own containers do too.
. "$(dirname "$0")/lib.sh"
kind=$1
iptables() { "iptables-$kind" -w 5 "$@"; }
ip6tables() { "ip6tables-$kind" -w 5 "$@"; }

# docker 27|28: what Docker sets up for its first network as it starts, with its policy DROP: 27 by versions up to it,
# 28 by those that leave DOCKER-USER empty
docker() {
  local docker_user_end="-A DOCKER-USER -j RETURN" family
  if [ "${1-27}" = 28 ]; then docker_user_end=""; fi
  for family in iptables ip6tables; do
    "$family-$kind-restore" --noflush <<R || return
*filter
:FORWARD DROP
:DOCKER -
:DOCKER-ISOLATION-STAGE-1 -
:DOCKER-ISOLATION-STAGE-2 -
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
$docker_user_end
COMMIT
R
  done
  iptables -t nat -N DOCKER &&
    iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER &&
    iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER &&
    iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE &&
    iptables -t nat -A DOCKER -i docker0 -j RETURN
}
docker_bridge() {
  ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up &&
    namespace box docker0 && ip -n box addr add 172.17.0.2/16 dev eth0 && ip -n box route add default via 172.17.0.1 &&
    listen box 80 && listen box 81 && echo 1 >/proc/sys/net/ipv4/ip_forward
}
# publish: port 80 of the container as port 8080 of the host, as `docker run -p 8080:80`
publish() {
  iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80 &&
    iptables -I DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
}
# what Docker's firewall is without what is ours
theirs() { { iptables -S; ip6tables -S; iptables -t nat -S; } | grep -v 'comment vmfabric'; }
ours() { { iptables -S; ip6tables -S; } | grep 'comment vmfabric'; }
nothing_ours() { ! ours; }
containers_work() {
  check "$1: a container reaches the outside" eventually opens box 203.0.113.2 7000
  check "$1: what it publishes is reached from outside" eventually opens internet 203.0.113.1 8080
  check "$1: what it does not publish is not, from a guest" not opens web 172.17.0.2 81
}

install_vmfabric && start_bus && start_vmfabricd || finish
need "the internet" internet_host
need "the guests" guests
guests_work "alone"

docker_bridge
need "Docker starts" docker
need "it publishes a port" publish
theirs >"$RIG_LOGS/theirs"
# Nothing tells of changes of legacy iptables; the next pass looks.
[ "$kind" = nft ] || vmfabric network create early >/dev/null
check "entries of ours are there soon" eventually ours
check "the plan is empty" eventually plan_is_empty
guests_work "with Docker"
containers_work "with Docker"
need "br_netfilter" eval 'br_netfilter 1 || { modprobe br_netfilter && br_netfilter 1; }'
guests_work "with br_netfilter"
check "without the entries br_netfilter would keep neighbours apart" eval \
  '{ stop_vmfabricd; iptables -S DOCKER-USER | grep "comment vmfabric" | sed s/^-A/-D/ >"$RIG_LOGS/ours"; } &&
   while read -r rule; do iptables $rule || exit; done <"$RIG_LOGS/ours" && not opens web "$(address db)" 80'
check "the daemon starts again" start_vmfabricd
guests_work "after a restart"
check "what is Docker's is as it was" cmp "$RIG_LOGS/theirs" <(theirs)

check "somebody takes an entry away" iptables -D DOCKER-USER -o vmf-nat -m comment --comment vmfabric -j ACCEPT
[ "$kind" = nft ] || vmfabric network create soon >/dev/null
check "it comes back" eventually iptables -C DOCKER-USER -o vmf-nat -m comment --comment vmfabric -j ACCEPT
check "a rule of the administrator in front" iptables -I DOCKER-USER -i vmf-nat -d 203.0.113.2 -j DROP
check "holds" not opens web 203.0.113.2 7000
check "and goes" iptables -D DOCKER-USER -i vmf-nat -d 203.0.113.2 -j DROP

check "Docker starts anew" eval 'iptables -F; iptables -X; ip6tables -F; ip6tables -X; iptables -t nat -F; iptables -t nat -X
  docker 28 && publish'
[ "$kind" = nft ] || vmfabric network create sooner >/dev/null
check "entries of ours are there again" eventually ours
guests_work "with Docker 28"
containers_work "with Docker 28"

theirs >"$RIG_LOGS/theirs"
check "nothing needs them any more" vmfabric subnet set nat forward=none
check "what lets guests out is gone" eventually not iptables -C DOCKER-USER -o vmf-nat -m comment --comment vmfabric -j ACCEPT
check "the daemon stops" stop_vmfabricd
check "--clean-up" clean_up_but_libvirt
check "nothing of ours is left" nothing_ours
check "and what is Docker's is as it was" cmp "$RIG_LOGS/theirs" <(theirs)
finish
