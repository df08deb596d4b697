# Real boot ROMs (iPXE in QEMU's NICs) boot over the network from servers that are not ours: dnsmasq for TFTP, busybox for
# HTTP. What they are told depends on the user class, and on the port.
. "$(dirname "$0")/files.sh" --boot server=10.66.0.9 --boot bios=first.ipxe --boot ipxe=http://10.66.0.9/second.ipxe
cat >/run/boot/first.ipxe <<'IPXE'
#!ipxe
echo FIRST-STAGE by TFTP from ${next-server} as ${net0/ip}
chain http://${next-server}/second.ipxe
IPXE
vmfabric port create boot --mac 52:54:00:66:00:01 >/dev/null
# A port's own rule wins: this one's iPXE gets a file by TFTP first.
vmfabric port create boot --mac 52:54:00:66:00:02 --address 10.66.0.77 --boot ipxe=first.ipxe >/dev/null

rom() { boot "$1" "$3" "$4" -m 128 -device "$2,netdev=n,mac=$3,bootindex=1"; } # NAME DEVICE MAC WHAT-IT-TELLS

# iPXE in the NIC's ROM is iPXE already: it gets the script at once.
rom virtio virtio-net-pci 52:54:00:66:00:01 'told/10.66.0.[0-9]*/255.255.255.0'
! grep -q first.ipxe "$RIG_LOGS/tftp.log" || die "iPXE was told the BIOS's file"

# The other one's port has a rule of its own.
rom tftp e1000 52:54:00:66:00:02 'told/10.66.0.77/255.255.255.0'
grep -q 'sent /run/boot/first.ipxe to 10.66.0.77' "$RIG_LOGS/tftp.log" || { cat "$RIG_LOGS/tftp.log"; die "nothing came by TFTP"; }
vmfabric --json lease list boot | grep -q 10.66.0.77 || die "no lease"
echo "both boot ROMs booted over the network"
