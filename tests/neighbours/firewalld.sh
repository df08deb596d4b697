#!/bin/bash
# firewalld.sh: a real firewalld, across its reload and restart; its own zones and libvirt's stay what they are.
. "$(dirname "$0")/lib.sh"
start_firewalld() {
  firewalld --nofork --nopid >>"$RIG_LOGS/firewalld.log" 2>&1 &
  FIREWALLD=$!
  wait_for $LONG firewall-cmd --state
}
stop_firewalld() { kill $FIREWALLD && wait_for $LONG not kill -0 $FIREWALLD; }
in_zone() { firewall-cmd --zone=vmfabric --list-interfaces | grep -w vmf-nat; }
# theirs: all of firewalld but our zone, at run time and at rest
theirs() {
  local zone
  for zone in $(firewall-cmd --get-zones); do
    [ "$zone" = vmfabric ] || firewall-cmd --zone="$zone" --list-all
  done
  firewall-cmd --get-default-zone
  find /etc/firewalld -type f -exec md5sum {} +
}

install_vmfabric && start_bus && internet_host || finish
need "firewalld starts" start_firewalld
check "its default zone is one that lets little in" firewall-cmd --set-default-zone=public
firewall-cmd --zone=internal --add-interface=uplink
theirs >"$RIG_LOGS/theirs"
need "the daemon starts" start_vmfabricd
check "the gateway is in our zone" eventually in_zone
need "the guests" guests
guests_work "with firewalld"
check "the plan is empty" eventually plan_is_empty
"$VMFABRIC_RIG/peer-server" 7001 "$RIG_LOGS/host.peers" >"$RIG_LOGS/host.peer.log" 2>&1 &
need "somebody listens there" wait_for 10 "$VMFABRIC_RIG/tcp-open" 127.0.0.1 7001
check "the host's other ports are shut to guests" not opens web 192.168.123.1 7001
check "what else firewalld has is as it was" cmp "$RIG_LOGS/theirs" <(theirs)

check "firewalld reloads" firewall-cmd --reload
check "the gateway is in our zone again" eventually in_zone
guests_work "after a reload"
check "firewalld forgets all and reloads" firewall-cmd --complete-reload
check "the gateway is in our zone again" eventually in_zone
guests_work "after a complete reload"
check "firewalld stops" stop_firewalld
guests_work "without firewalld"
check "it starts again" start_firewalld
check "the gateway is in our zone again" eventually in_zone
guests_work "after a restart"
check "somebody takes the gateway out" firewall-cmd --zone=vmfabric --remove-interface=vmf-nat
check "it comes back" eventually in_zone
check "the daemon is restarted" eval 'stop_vmfabricd KILL; start_vmfabricd && eventually plan_is_empty'
check "the gateway is in our zone" in_zone

# A routed network: from outside, too.
vmfabric subnet set nat forward=routed && ip -n internet route add 192.168.123.0/24 via 203.0.113.1
check "a routed network is reached from outside" eventually opens internet "$(address db)" 80
vmfabric subnet set nat forward=nat
check "a network behind NAT is not" eventually not opens internet "$(address db)" 80

vmfabric subnet delete nat >/dev/null; ip link del t-web; ip link del t-db
check "the daemon stops" stop_vmfabricd
check "--clean-up" clean_up_but_libvirt
check "nothing of ours is left in firewalld" eval '[ -z "$(firewall-cmd --zone=vmfabric --list-interfaces)" ]'
finish
