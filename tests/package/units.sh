# units.sh DEB: systemd reads the installed units without complaint, and finds the daemon well confined. In a private-host.
. "$VMFABRIC_RIG/lib.sh"
dpkg --force-unsafe-io --install "$1" >/dev/null || exit
units=(/usr/lib/systemd/system/vmfabricd.service /usr/lib/systemd/system/vmfabric-hook.socket)
complaints=$(systemd-analyze verify --man=no "${units[@]}" 2>&1) && [ -z "$complaints" ] ||
  { echo "systemd-analyze verify:"; echo "$complaints"; exit 1; }
exposure() { systemd-analyze security --offline=yes --no-pager "$1" | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p'; }
ours=$(exposure "${units[0]}") networkd=$(exposure /lib/systemd/system/systemd-networkd.service)
echo "exposure: vmfabricd $ours, systemd-networkd $networkd"
awk -v ours="$ours" -v networkd="$networkd" 'BEGIN { exit !(ours > 0 && ours <= networkd) }'
