#!/bin/bash
# no-daemon.sh: the daemon is dead, then hangs: no guest of ours starts unconnected, no other guest is touched.
. "$(dirname "$0")/checks.sh"
stage
bridge=$(vmfabric --json network show nat | sed -n 's/.*"bridge": "\(.*\)".*/\1/p')
ip link add br-other type bridge && ip link set br-other up
define_guest ours 52:54:00:30:00:01 network=nat
define_guest bridged 52:54:00:30:00:02 bridge="$bridge"
define_guest foreign 52:54:00:30:00:03 bridge=br-other
define_guest bare
define_guest lives 52:54:00:30:00:04 network=nat
need "a guest starts while the daemon is there" virsh start lives
need "it has a lease" has_lease lives
gateway=192.168.123.1

hook_is_silent() { # whatever it is told of, but for what comes before a guest runs
  local file driver operation sub output
  for file in "$VMFABRIC_RIG"/../data/hooks/*.xml /dev/null "$RIG_LOGS/garbage"; do
    case ${file##*/} in
      qemu-prepare-* | qemu-start-* | network-port-created-*) continue ;;
      *.xml) IFS=- read -r driver operation sub <<<"$(basename "$file" .xml | sed 's/-hotplug//; s/port-deleted/port_deleted/')" ;;
      *) driver=qemu operation=reconnect sub=begin ;;
    esac
    output=$("/etc/libvirt/hooks/$driver.d/vmfabric" any "${operation/_/-}" "$sub" - <"$file" 2>&1) && [ -z "$output" ] ||
      { echo "${file##*/}: status $?, and: $output"; return 1; }
  done
}
head -c 100000 /dev/urandom >"$RIG_LOGS/garbage"
reconnects() { stop_libvirt && start_libvirt && running "$1"; }
without_daemon() { # HOW SECONDS FOREIGN-SECONDS
  check "daemon $1: a guest on our network does not start, and it says what to do" within "$2" \
    fails_saying "52:54:00:30:00:01|ours|vmfabricd does not answer|systemctl start vmfabricd" virsh start ours
  check "daemon $1: nor does one on our bridge" within "$2" \
    fails_saying "52:54:00:30:00:02|bridged|vmfabricd does not answer" virsh start bridged
  check "daemon $1: neither runs" eval 'stopped ours && stopped bridged'
  check "daemon $1: a guest on another bridge starts" within "$3" virsh start foreign
  check "daemon $1: a guest without a NIC starts" within "$3" virsh start bare
  check "daemon $1: both stop" eval 'virsh destroy foreign && virsh destroy bare'
  check "daemon $1: the running guest reaches its gateway" pings lives $gateway
  check "daemon $1: suspend and resume" eval 'virsh suspend lives && virsh resume lives'
  check "daemon $1: libvirtd comes back to the running guest" reconnects lives
  check "daemon $1: the guest still reaches its gateway" pings lives $gateway
  check "daemon $1: a NIC of our network is not plugged" within "$2" \
    fails_saying "52:54:00:30:00:05|vmfabricd does not answer" \
    virsh attach-device lives /dev/stdin --live <<<"$(nic_xml 52:54:00:30:00:05 network=nat)"
  check "daemon $1: of all else the hook says nothing, and succeeds" hook_is_silent
  check "daemon $1: a NIC on another bridge is plugged, and unplugged" eval '
    nic_xml 52:54:00:30:00:06 bridge=br-other >/run/rig/nic.xml
    virsh attach-device lives /run/rig/nic.xml --live && virsh detach-device lives /run/rig/nic.xml --live'
}

check "daemon there: of what does not come before a guest runs the hook says nothing, and succeeds" hook_is_silent
stop_vmfabricd KILL
without_daemon dead 5 5
index=/var/lib/vmfabric/hook-index.json
cp "$index" "$RIG_LOGS/index" && head -c 10 "$RIG_LOGS/index" >"$index"
check "daemon dead, and its index damaged: a guest on our network does not start" \
  fails_saying "52:54:00:30:00:01|ours|vmfabricd does not answer" virsh start ours
check "daemon dead, and its index damaged: a guest without a NIC starts" eval 'virsh start bare && virsh destroy bare'
cp "$RIG_LOGS/index" "$index"
check "daemon dead: a guest is destroyed" virsh destroy lives
check "the daemon starts" start_vmfabricd
check "nothing is left of the guest that stopped meanwhile" eventually eval 'nothing_bound && plan_is_empty'
check "ours starts" virsh start ours
check "and has a lease" has_lease ours
check "lives starts" virsh start lives
virsh -q destroy ours
wait_for $LONG pings lives $gateway

kill -STOP "$VMFABRICD_PID"
without_daemon hung 15 10
check "daemon hung: a guest is destroyed in time" within 10 virsh destroy lives
kill -CONT "$VMFABRICD_PID"
check "the daemon goes on, and the plan is empty" eventually plan_is_empty
check "bridged starts" virsh start bridged
check "and has a lease" has_lease bridged
check "ours starts" virsh start ours

stop_vmfabricd
rm /usr/sbin/vmfabric-hook
check "the package is gone: guests start as if it had never been there" eval 'virsh start lives && virsh start foreign'
finish
