# power-cut-load.sh: twenty guests that take, renew and give back leases until the power is cut. On a system-vm.
. "$VMFABRIC_RIG/lib.sh"
exec >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo
printf flushed | dd of=/dev/vdb bs=4096 conv=sync,fsync oflag=direct status=none
printf unflushed | dd of=/dev/vdb bs=4096 seek=128 conv=sync oflag=direct status=none
# No libvirt: it does not know the guests that are played here.
systemctl -q mask --now libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket
apt-get -qqy install /rig/in/vmfabric_*.deb || exit
wait_for 120 vmfabricd_answers || die "no vmfabricd"
exec python3 "$(dirname "$0")/power-cut-load.py" >/run/rig/load.log
