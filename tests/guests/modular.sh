#!/bin/bash
# modular.sh: virtqemud and virtnetworkd instead of libvirtd; each comes late, restarts and is killed under us.
. "$(dirname "$0")/checks.sh"
export MODULAR=1
install_vmfabric && start_bus && start_vmfabricd || finish
mac=52:54:00:90:00:01 plugged=52:54:00:90:00:02 gateway=192.168.123.1

check "status says that libvirt is not there" libvirt_is disconnected
mkdir -p /etc/libvirt && cp -n "$VMFABRIC_RIG"/libvirt/*.conf /etc/libvirt/ && virtlogd -d
need "virtqemud comes, without virtnetworkd" eval 'start_libvirt_daemon virtqemud && wait_for 30 virsh -q uri'
check "status says that libvirt is connected" eventually libvirt_is connected
check "and that its networks cannot be listed" eventually problem_says virtnetworkd
need "virtnetworkd comes" start_libvirt
check "there is no libvirtd" eval '! pgrep -x libvirtd && [ ! -e /run/libvirt/libvirt-sock ]'
check "the network is offered" eventually network_active nat
check "by virtnetworkd" eval 'virsh -c network:///system net-list --name | grep -qx nat'
check "all is well" eventually vmfabric status

define_guest web $mac network=nat
need "a guest starts" virsh start web
check "its port was up before it ran" port_is $mac status active
check "it has a lease" has_lease web
address=$(port $mac addresses)
check "it reaches its gateway" pings web $gateway
wait_for $LONG guest_run web true
guest_run web "(ping -i 0.1 -W 2 $gateway >/tmp/gateway 2>&1 & echo \$! >/tmp/pid) </dev/null" || finish
answers() { guest_run web 'wc -l </tmp/gateway'; }
ten_more() { local from; from=$(answers); wait_for $LONG eval '[ "$(answers)" -ge $((from + 10)) ]'; }

plug() { nic_xml $plugged network=nat >"$RIG_LOGS/nic.xml" && virsh attach-device web "$RIG_LOGS/nic.xml" --live; }
unplug() { virsh detach-device web "$RIG_LOGS/nic.xml" --live; }
leases() { grep -ac GUEST-LEASE "$RIG_LOGS/web.log"; }
# works WHEN: all that crosses between the two daemons and us
works() {
  local when=$1 before name="net${1//[^a-z]/}"
  check "$when: the guest lives, and its port" eval 'running web && port_is $mac status active && port_is $mac addresses "$address"'
  check "$when: the plan is empty" eventually plan_is_empty
  before=$(leases)
  check "$when: a NIC is plugged, by its network's name" plug
  check "$when: its port is active" eventually port_is $plugged status active
  check "$when: it has a lease" eventually eval '[ "$(leases)" -gt "$before" ]'
  check "$when: it is unplugged" unplug
  check "$when: its port is gone" eventually no_port $plugged
  check "$when: a network is made" vmfabric network create "$name"
  check "$when: it is offered" eventually network_active "$name"
  check "$when: somebody stops it, and it comes back" eval 'virsh net-destroy "$name" && wait_for 45 network_active "$name"' # before the look of every minute
  check "$when: it is deleted" vmfabric network delete "$name"
  check "$when: and offered no more" eventually eval '! virsh net-list --all --name | grep -qx "$name"'
  check "$when: all is well" eventually vmfabric status
  ten_more
}
works "at first"
for signal in TERM KILL; do
  for daemon in virtnetworkd virtqemud; do
    check "$daemon ends by SIG$signal" eval "pkill -$signal -x $daemon && wait_for 20 not pgrep -x $daemon"
    ten_more
    check "the plan is empty" plan_is_empty
    check "$daemon comes back" start_libvirt_daemon $daemon
    check "libvirt is connected" eventually eval 'virsh -q uri && virsh -q net-list && libvirt_is connected'
    works "after $daemon's SIG$signal"
  done
done
check "the daemon is killed" stop_vmfabricd KILL
ten_more
check "it starts" start_vmfabricd
check "its first plan is empty" plan_is_empty
works "after our SIGKILL"
guest_run web 'kill -INT $(cat /tmp/pid); sleep 1'
no_loss() { guest_run web 'tail -n 3 /tmp/gateway' | tee "$RIG_LOGS/gateway.txt" && grep -q ' 0% packet loss' "$RIG_LOGS/gateway.txt"; }
check "a ping through all of it, 10 a second: no packet was lost" no_loss
sed -n 's/.*transmitted/       &/p' "$RIG_LOGS/gateway.txt"

check "without virtnetworkd" stop_libvirt virtnetworkd
check "a guest on its network stops" virsh destroy web
check "nothing is bound" eventually nothing_bound
check "it does not start: libvirt cannot know its network" fails_saying virtnetworkd virsh start web
check "nothing is bound" eventually nothing_bound
check "virtnetworkd comes back" start_libvirt_daemon virtnetworkd
check "the guest starts" eventually virsh start web
check "it has its old address" eventually port_is $mac addresses "$address"
check "it reaches its gateway" eventually pings web $gateway
check "the plan is empty" eventually plan_is_empty
finish
