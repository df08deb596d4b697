# kill.sh [ROUNDS [4|6]]: kills the daemon at random moments while perfdhcp asks for leases. After each kill, what was
# acknowledged is there, and no address was given to two clients.
. "$VMFABRIC_RIG/lib.sh"
set -e
state=$(mktemp -d -p "$VMFABRIC_REPO/target" kill.XXXXXX)
trap 'rm -rf "$state"' EXIT
mount --bind "$state" /var/lib/vmfabric # a real disk
install_vmfabric
start_bus
mkdir -p /etc/vmfabric
printf '[dhcp]\nleases_per_port = 0\npackets_per_port = 0\n' >/etc/vmfabric/vmfabricd.toml
python3 "$VMFABRIC_REPO/tests/dhcp/kill.py" "${1-20}" "${2-4}"
