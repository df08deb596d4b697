#!/bin/bash
# groups.sh: real guests in a security group whose rules change while TCP streams run between them.
. "$(dirname "$0")/checks.sh"
A=52:54:00:70:00:01 B=52:54:00:70:00:02
stage
group() { vmfabric security-group "$@"; }
# listen PORT: in b; stream PORT: from a, ten lines a second
listen() { guest_run -t $LONG b "sleep 10000 | nc -l -p $1 >/tmp/got$1 2>/dev/null &"; }
stream() { guest_run -t $LONG a "(while sleep 0.1; do echo line; done) | nc $ADDRESS $1 >/dev/null 2>&1 &"; }
got() { guest_run -t $LONG b "wc -c </tmp/got$1" | tr -dc 0-9; }
flows() { local before; before=$(got "$1"); wait_for $LONG eval "[ \"\$(got $1)\" -gt ${before:-0} ]"; }
# silent PORT: nothing arrives for the time that two looks and two seconds take
silent() {
  local before; before=$(got "$1")
  guest_run -t $LONG b 'sleep 2'
  local after; after=$(got "$1")
  [ "$before" = "$after" ] || { echo "$before bytes, then $after"; return 1; }
}
opens() { guest_run -t $LONG a "nc -w 5 $ADDRESS $1 </dev/null"; }

need "a group" group create web --rule 'egress any' --rule 'ingress tcp 5000-5001 from group web' --rule 'ingress icmp from group web'
need "a network whose ports are in it" vmfabric network create lab --security-group web
need "its subnet" vmfabric subnet create lab 10.70.0.0/24 --forward nat
need "libvirt has it" wait_for $LONG network_active lab
define_guest a $A network=lab && define_guest b $B network=lab
need "virsh start a" virsh start a
need "virsh start b" virsh start b
need "a has a lease" wait_lease a 90
need "b has a lease" wait_lease b 90
ADDRESS=$(guest_ip b)
check "the rules allow ping" guest_run -t $LONG a "ping -c 2 -W 5 $ADDRESS"
for port in 5000 5001 5002; do listen $port; done
stream 5000 && stream 5001
check "a stream to port 5000" flows 5000
check "a stream to port 5001" flows 5001
check "no rule allows port 5002" eval '! opens 5002'
check "what b sends is allowed, and answered" guest_run -t $LONG b "ping -c 1 -W 5 $(guest_ip a)"

check "port 5001 alone, then what allowed both goes" eval \
  "group rule add web 'ingress tcp 5001 from group web' && group rule remove web 'ingress tcp 5000-5001 from group web'"
check "the stream to port 5000 is dead" silent 5000
check "the stream to port 5001 lives" flows 5001
check "the daemon ended one connection" grep "connections ended\|ended" "$RIG_LOGS/vmfabricd.log"
check "port 5000 is allowed again" group rule add web 'ingress tcp 5000 from group web'
check "the dead stream stays dead" silent 5000
listen 5000
check "a new one may come" opens 5000
check "explain tells why" eval "vmfabric explain $B && vmfabric explain $B | grep -q 'TCP 5001 from members of group web'"
check "trace agrees" eval "vmfabric trace --from $A --to $B --proto tcp --port 5001 && ! vmfabric trace --from $A --to $B --proto tcp --port 5002"
check "the plan is empty" eventually plan_is_empty
stop_vmfabricd KILL
check "without the daemon the stream lives" flows 5001
check "vmfabricd again" start_vmfabricd
check "the stream still lives" flows 5001
check "the plan is empty still" eventually plan_is_empty
check "a group in use cannot be deleted" fails_saying "web|lab" group delete web
finish
