#!/bin/bash
# panic.sh: the kernel of a guest panics, and libvirt does what the guest's definition says. Debian's kernel: it tells.
. "$(dirname "$0")/checks.sh"
stage
mac=52:54:00:b0:00:01 gateway=192.168.123.1
export GUEST_XML="<uuid>9f2d3c1a-5b0e-4c65-8a43-000000000001</uuid>" # stays the same guest when defined anew
export GUEST_KERNEL=stock GUEST_DEVICES="<panic model='isa'/>"
crash() { guest_run -t 5 web 'echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger'; true; }
reason_is() { virsh domstate --reason web | grep -qx "$1" || { virsh domstate --reason web; return 1; }; }
lease() { vmfabric --json lease list | grep -v expires; }
begin() { # ON_CRASH
  GUEST_ON_CRASH=$1 define_guest web $mac network=nat && : >"$RIG_LOGS/web.log" && virsh start web
}
right() { # WHEN
  check "$1: its port is active" eventually port_is $mac status active
  check "$1: its tap is bound" eventually eval 'bound "$(tap_of web $mac)"'
  check "$1: nothing else is" eval '[ "$(ip link | grep -c "alias vmfabric:port/")" = 1 ]'
  check "$1: the address is the same" port_is $mac addresses "$address"
  check "$1: so is the lease" eval '[ "$(lease)" = "$lease" ]'
  check "$1: the plan is empty" eventually plan_is_empty
}

need "destroy: a guest starts" begin destroy
need "destroy: it has a lease" has_lease web
address=$(port $mac addresses) lease=$(lease)
check "destroy: its kernel panics, and libvirt ends it" eval 'crash; wait_for $LONG reason_is "shut off (crashed)"'
check "destroy: nothing is bound" eventually nothing_bound
check "destroy: its port is down" eventually port_is $mac status down
check "destroy: it keeps its address" port_is $mac addresses "$address"
check "destroy: and its lease" eval '[ "$(lease)" = "$lease" ]'
check "destroy: the plan is empty" eventually plan_is_empty

need "restart: it starts" begin restart
check "restart: it has a lease" has_lease web
check "restart: its kernel panics, and it boots again" eval 'crash; wait_for $LONG eval "[ \$(grep -ac GUEST-UP $RIG_LOGS/web.log) -ge 2 ]"'
check "restart: it has a lease again" wait_for $LONG eval '[ "$(grep -ac "GUEST-LEASE eth0" "$RIG_LOGS/web.log")" -ge 2 ]'
right restart
check "restart: it reaches its gateway" eventually pings web $gateway
check "restart: the guest stops" virsh destroy web

need "preserve: it starts" begin preserve
check "preserve: it has a lease" has_lease web
check "preserve: its kernel panics, and it stands still" eval 'crash; wait_for $LONG reason_is "crashed (panicked)"'
right preserve
check "preserve: a restart of the daemon changes nothing" eval 'stop_vmfabricd && start_vmfabricd && plan_is_empty'
right "preserve, restarted"
check "preserve: it is reset" virsh reset web
check "preserve: and resumed" virsh resume web
check "preserve: it has a lease again" wait_for $LONG eval '[ "$(grep -ac "GUEST-LEASE eth0" "$RIG_LOGS/web.log")" -ge 2 ]'
right "preserve, resumed"
check "preserve: it reaches its gateway" eventually pings web $gateway
check "preserve: the guest stops" virsh destroy web
check "nothing is bound" eventually nothing_bound
check "the plan is empty" eventually plan_is_empty
finish
