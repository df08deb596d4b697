#!/bin/bash
# libvirt-restart.sh: libvirtd comes late, stops, is killed and comes back; and ten guests start at once.
. "$(dirname "$0")/checks.sh"
install_vmfabric && start_bus || finish
need "vmfabricd is up before libvirtd" start_vmfabricd
check "status says that libvirt is not there" libvirt_is disconnected
check "and is degraded" eval 'vmfabric status; [ $? = 7 ]'
need "libvirtd comes" start_libvirt
check "status says so" eventually libvirt_is connected
check "the network is offered" eventually network_active nat
define_guest web 52:54:00:70:00:01 network=nat
need "a guest starts" virsh start web
check "it has a lease" has_lease web

check "libvirtd is killed" eval 'pkill -KILL -x libvirtd; wait_for 20 not pgrep -x libvirtd'
check "status says so" eventually libvirt_is disconnected
check "the guest's port is active all the same" port_is 52:54:00:70:00:01 status active
check "the guest reaches its gateway" pings web 192.168.123.1
check "the plan is empty" plan_is_empty
check "a network is made meanwhile" vmfabric network create meanwhile
check "libvirtd comes back" start_libvirt
check "status says so" eventually libvirt_is connected
check "the guest lives" eval 'running web && pings web 192.168.123.1'
check "the network is offered" eventually network_active meanwhile

check "libvirtd is stopped" stop_libvirt
check "the guest's QEMU is killed" eval 'pkill -KILL -f "guest=web[,]"'
check "nothing of it is bound, without libvirt" eventually nothing_bound
check "its port is down" eventually port_is 52:54:00:70:00:01 status down
check "libvirtd comes back" start_libvirt
check "status says so" eventually libvirt_is connected
check "a guest is undefined while the daemon is away" eval 'stop_vmfabricd && virsh undefine web && start_vmfabricd'
check "its port is gone" eventually no_port 52:54:00:70:00:01

for n in 0 1 2 3 4 5 6 7 8 9; do define_guest ten$n 52:54:00:70:01:0$n network=nat; done
ten_at_once() {
  local n pids=() status=0
  for n in 0 1 2 3 4 5 6 7 8 9; do virsh start ten$n & pids+=($!); done
  for n in "${pids[@]}"; do wait "$n" || status=1; done
  return $status
}
check "ten guests start at once" ten_at_once
for n in 0 1 2 3 4 5 6 7 8 9; do check "ten$n has a lease" has_lease ten$n 120; done
all_active() { [ "$(vmfabric port list | grep -c ' active$')" = 10 ] || { vmfabric port list; return 1; }; }
check "all ports are active" eventually all_active
check "all addresses differ" eval '[ "$(vmfabric lease list | awk "NR > 1 { print \$2 }" | sort -u | wc -l)" = 10 ]'
check "all were heard at once" eval '! grep -l GUEST-NOLEASE "$RIG_LOGS"/ten*.log'
check "the first reaches the last by name" pings ten0 ten9.nat.internal
check "the plan is empty" eventually plan_is_empty
ten_end() { local n; for n in 0 1 2 3 4 5 6 7 8 9; do virsh -q destroy ten$n & done; wait_for $LONG eval '[ -z "$(virsh -q list)" ]'; }
check "they stop at once" ten_end
check "nothing is bound" eventually nothing_bound
check "the plan is empty" eventually plan_is_empty
finish
