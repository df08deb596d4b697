#!/bin/bash
# lifecycle.sh: all the ways in which a guest stops, pauses and comes back.
. "$(dirname "$0")/checks.sh"
stage
mac=52:54:00:50:00:01 gateway=192.168.123.1
define_guest web $mac network=nat
need "web starts" virsh start web
need "web has a lease" has_lease web
address=$(port $mac addresses)

stopped_clean() { stopped web && port_is $mac status down && nothing_bound && plan_is_empty; }
back() { # WHAT: web runs, has its old address, and reaches its gateway
  check "$1: its port is active" eventually port_is $mac status active
  check "$1: it has its old address" port_is $mac addresses "$address"
  check "$1: it reaches its gateway" eventually pings web $gateway
  check "$1: with that address" guest_run web "ip addr show dev eth0 | grep -w $address"
  check "$1: the plan is empty" eventually plan_is_empty
}
check "it answers the host" busybox ping -q -c 1 -W 5 "$address"
check "suspend" virsh suspend web
check "a suspended guest keeps its port" port_is $mac status active
check "resume" virsh resume web
back resume
check "reset" virsh reset web
wait_for $LONG eval '[ "$(grep -c GUEST-UP "$RIG_LOGS/web.log")" -ge 2 ]'
back reset
check "reboot from within" eval 'guest_run -t 5 web "reboot -f"; wait_for $LONG eval "[ \$(grep -c GUEST-UP $RIG_LOGS/web.log) -ge 3 ]"'
back reboot
check "destroy" virsh destroy web
check "destroy: nothing of it is left, and the port is down" eventually stopped_clean
check "start" virsh start web
back start
check "power off from within" eval 'guest_run -t 5 web "poweroff -f"; wait_for $LONG stopped web'
check "power off: nothing of it is left" eventually stopped_clean
check "start" virsh start web
back "start again"
check "QEMU is killed" eval 'pkill -KILL -f "guest=web[,]"; wait_for $LONG stopped web'
check "crash: nothing of it is left" eventually stopped_clean
check "start" virsh start web
back "after the crash"
check "save" virsh save web /run/rig/web.save
check "save: nothing of it is left" eventually stopped_clean
check "restore" virsh restore /run/rig/web.save
back restore
check "managed save" virsh managedsave web
check "managed save: nothing of it is left" eventually stopped_clean
check "start" virsh start web
back "start from the managed save"
check "it stops while the daemon is away" eval 'stop_vmfabricd && virsh destroy web && start_vmfabricd'
check "nothing of it is left" eventually stopped_clean
check "a start that stays paused" virsh start --paused web
check "its port is up before it runs" port_is $mac status active
check "resume" virsh resume web
check "it is undefined while it runs" virsh undefine web
check "it keeps its port" eval 'port_is $mac status active && eventually pings web $gateway'
check "it stops" virsh destroy web
check "its port is gone" eventually no_port $mac
check "and its lease" eventually eval '! vmfabric lease list | grep -w "$address"'
check "nothing is bound" eventually nothing_bound
check "the plan is empty" eventually plan_is_empty

check "a transient guest" eval 'domain_xml brief 52:54:00:50:00:02 network=nat >/run/rig/brief.xml && virsh create /run/rig/brief.xml'
check "has a lease" has_lease brief
check "stops" virsh destroy brief
check "and its port is gone" eventually no_port 52:54:00:50:00:02
define_guest web $mac network=nat
virsh -q start web
check "a guest is renamed" eval 'wait_for $LONG has_lease web; virsh destroy web && virsh domrename web www'
check "a stopped guest is undefined" virsh undefine www
check "its port is gone" eventually no_port $mac
check "no port is left" eval '[ "$(vmfabric --json port list)" = "[]" ]'
check "the plan is empty" eventually plan_is_empty
finish
