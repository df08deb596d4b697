#!/bin/bash
# hostile.sh SUITE [ARG...]: a host with an uplink and the internet behind it, and then a suite of this folder's.
. "$(dirname "$0")/../vlan/lib.sh"
suite=$1 kind=${2-}
shift
stage "the uplink" wire
stage "the internet" internet_host
filter=('host_services = ["tcp/3128", "udp/123"]') more=()
if [ "$suite" = attacks ]; then
  filter+=('log_drops = true') more=('[metrics]' 'listen = "127.0.0.1:9177"')
fi
case $kind in
  existing) # a bridge of an administrator's
    ip link add br0 address 02:00:00:00:00:b0 type bridge vlan_filtering 1 && ip link set br0 up
    ip link set eth1 master br0 && bridge vlan add vid 10 dev eth1
    LAN=('[physical_networks.lan]' 'bridge = "br0"' 'vlans = "10-99"' 'native_vlan = 1') ;;
esac
stage "vmfabricd" start_host '[filter]' "${filter[@]}" "${more[@]}" "${LAN[@]}"
echo "$VMFABRICD_PID" >"$RIG_LOGS/vmfabricd.pid"
[ "$suite" != first ] || stage "libvirt" start_libvirt
cd "$(dirname "$0")" || exit
PYTHONDONTWRITEBYTECODE=1 python3 -u "$suite.py" "$@"
status=$?
[ $status = 0 ] || { echo "--- vmfabricd's log"; tail -n 25 "$RIG_LOGS/vmfabricd.log"; vmfabric status; vmfabric plan; }
exit $status
