# life.sh DEB: the life of the package on a host with libvirt but without systemd, from its installation to its purge.
# Run in a private-host.
. "$VMFABRIC_RIG/lib.sh"
deb=$1

step() { echo "== $*"; }

fail() {
  echo "FAILED: $*" >&2
  { ip -br link; nft list tables; virsh net-list --all; tail -n 30 "$RIG_LOGS"/vmfabricd.log; } >&2 2>&1
  exit 1
}

check() { "$@" || fail "$*"; }

dpkg_does() { # OPTION...
  dpkg --force-unsafe-io "$@" >"$RIG_LOGS/dpkg.log" 2>&1 || { cat "$RIG_LOGS/dpkg.log" >&2; fail "dpkg $*"; }
}

links_of_ours() { cat /sys/class/net/*/ifalias 2>/dev/null | grep '^vmfabric:'; }
tables_of_ours() { nft list tables | grep vmfabric; }
# What the package and the daemon may leave in the file system; dpkg's own books are not meant.
files_of_ours() {
  find /etc /usr /var/lib /var/log /run -name '*vmfabric*' ! -path '/run/rig/*' ! -path '/run/cow/*' ! -path "$VMFABRIC_REPO/*" \
    ! -path '/usr/src/*' ! -path '/var/lib/dpkg/info/*' | grep .
}
enabled() { [ -L /etc/systemd/system/multi-user.target.wants/vmfabricd.service ] &&
  [ -L /etc/systemd/system/sockets.target.wants/vmfabric-hook.socket ]; }
net_is_active() { virsh net-info nat | grep -q '^Active: *yes'; }
has_network() { guest_run web 'ping -c 2 -W 2 192.168.123.1'; }
forwarding() { cat /proc/sys/net/ipv4/conf/uplink/forwarding; }

# The rig puts file systems there, which no purge could remove.
umount /etc/vmfabric /var/lib/vmfabric && rmdir /etc/vmfabric /var/lib/vmfabric || fail "the rig's own folders"
check not files_of_ours
before=$(nft list ruleset | sha256sum)

step "install"
internet_host || fail "the host outside"
echo 0 >/proc/sys/net/ipv4/conf/uplink/forwarding
dpkg_does --install "$deb"
check [ -z "$(dpkg --verify vmfabric)" ]
while read -r file; do check [ -e "$file" ]; done < <(dpkg --listfiles vmfabric)
check [ "$(stat -c %a:%U /etc/libvirt/hooks/qemu.d/vmfabric)" = 755:root ]
check [ "$(stat -c %a:%U /etc/vmfabric/vmfabricd.toml)" = 644:root ]
check enabled

step "a guest on its network, all from where the package puts it"
start_bus && start_vmfabricd && start_libvirt || fail "the daemons"
check wait_for 30 net_is_active
define_guest web 52:54:00:00:00:01 network=nat && virsh -q start web || fail "the guest does not start"
lease=$(wait_lease web 60) || fail "no lease"
check has_network
check links_of_ours
check tables_of_ours
check [ "$(forwarding)" = 1 ]
# --clean-up beside a daemon that runs would take networks away that it makes again.
check not vmfabricd --clean-up
check has_network

step "upgrade: the administrator's configuration stays, the daemon goes on until it is restarted"
echo '# mine' >>/etc/vmfabric/vmfabricd.toml
dpkg_does --force-confold --install "$deb"
check kill -0 "$VMFABRICD_PID"
check grep -q '# mine' /etc/vmfabric/vmfabricd.toml
check enabled

step "remove: configuration, state and the guest's network stay; libvirt starts guests without us"
check stop_vmfabricd
dpkg_does --remove vmfabric
check [ ! -e /usr/sbin/vmfabricd ]
check grep -q '# mine' /etc/vmfabric/vmfabricd.toml
check [ -e /var/lib/vmfabric/vmfabric.db ]
check has_network
define_guest alone && virsh -q start alone || fail "a guest that is not ours does not start"
virsh -q destroy alone

step "install again: what stands is taken up"
dpkg_does --install "$deb"
check [ ! -e /var/lib/vmfabric/clean-up ]
start_vmfabricd || fail "the daemon"
check has_network
check wait_for 30 vmfabric plan # succeeds when there is nothing to change
check [ "$(lease_field "$(wait_lease web)" ip)" = "$(lease_field "$lease" ip)" ]

step "purge: nothing of ours is left, the guest runs on, and others' things are as they were"
check stop_vmfabricd
dpkg_does --purge vmfabric
check not links_of_ours
check not tables_of_ours
check not files_of_ours
check [ "$(nft list ruleset | sha256sum)" = "$before" ]
check [ "$(forwarding)" = 0 ]
check not virsh net-info nat
check [ "$(virsh domstate web | head -n 1)" = running ]
check ip link show dev uplink
check not grep -q vmfabric /var/lib/dpkg/status

step "purge when the daemon's own way is lost: links and filters go all the same"
virsh -q destroy web
stop_libvirt || fail "libvirt does not stop"
dpkg_does --install "$deb"
start_vmfabricd || fail "the daemon"
check wait_for 30 links_of_ours
check stop_vmfabricd
dpkg_does --remove vmfabric
rm /var/lib/vmfabric/clean-up
dpkg_does --purge vmfabric
check not links_of_ours
check not tables_of_ours
check not files_of_ours
echo "package: all steps passed"
