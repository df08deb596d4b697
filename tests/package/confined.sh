# confined.sh DEB: the daemon does its work with the capabilities and the files that its unit leaves it. Run in a
# private-host; what needs systemd as pid 1 (seccomp, address families) is not tried here.
. "$VMFABRIC_RIG/lib.sh"
dpkg --force-unsafe-io --install "$1" >/dev/null 2>&1 || die "the package does not install"
unit=/usr/lib/systemd/system/vmfabricd.service
setting() { sed -n "s/^$1=//p" $unit; }

capabilities=-all
for capability in $(setting CapabilityBoundingSet); do
  capability=${capability,,}
  capabilities+=,+${capability#cap_}
done
[ "$(setting ProtectSystem)" = strict ] && [ "$(setting ReadOnlyPaths)" = "/sys /proc/sys" ] &&
  [ "$(setting ReadWritePaths | head -n 1)" = /proc/sys/net ] || die "the unit is not what this test imitates"

confined() {
  mkdir -p -m 700 /run/vmfabric /var/lib/vmfabric
  local path
  # Mounts of their own, so that what is around them can become read-only.
  for path in / /proc/sys /proc/sys/net /run/vmfabric /var/lib/vmfabric; do
    mountpoint -q $path && [ $path != /proc/sys/net ] || mount --bind $path $path || return
  done
  for path in / /etc /usr /var/lib /var/log /run /proc/sys /sys; do
    mount -o remount,bind,ro $path || return
  done
  exec setpriv --bounding-set "$capabilities" --no-new-privs /usr/sbin/vmfabricd
}

export -f confined
export capabilities
start_bus
unshare --mount --propagation private bash -c confined >"$RIG_LOGS/vmfabricd.log" 2>&1 &
VMFABRICD_PID=$!
ready() { vmfabric status; [ $? -lt 2 ]; }
show() { tail -n 30 "$RIG_LOGS/vmfabricd.log" >&2; die "$*"; }
wait_for 40 grep -q ready "$RIG_LOGS/vmfabricd.log" || show "the daemon is not ready"
start_libvirt && internet_host || die "the stage"
wait_for 30 eval 'virsh net-info nat | grep -q "^Active: *yes"' || show "no libvirt network"
define_guest web 52:54:00:00:00:01 network=nat && virsh -q start web || show "the guest does not start"
wait_lease web 60 || show "no lease"
guest_run web 'nslookup -type=a www.internet.test && nc -w 3 203.0.113.2 7000 </dev/null' || show "no way outside"
vmfabric plan || show "the plan is not empty"
nsenter -t "$(pidof vmfabricd)" --mount --root touch /etc/vmfabric-was-here 2>/dev/null && die "/etc could be written to"
virsh -q destroy web
kill "$(pidof vmfabricd)"
wait "$VMFABRICD_PID" || show "it does not end well"
echo "confined: all passed"
