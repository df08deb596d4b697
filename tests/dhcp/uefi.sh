# Real UEFI firmware (OVMF in QEMU) boots by HTTP and, from another port, by PXE, from servers that are not ours. Both times
# it loads iPXE, which is told its script: so it is seen that what was fetched runs.
. "$(dirname "$0")/files.sh" --boot server=10.66.0.9 --boot http-x64=http://10.66.0.9/ipxe.efi --boot uefi-x64=snponly.efi \
  --boot ipxe=http://10.66.0.9/second.ipxe
cp /usr/lib/ipxe/{ipxe,snponly}.efi /run/boot

vmfabric port create boot --mac 52:54:00:66:00:01 --address 10.66.0.77 >/dev/null
vmfabric port create boot --mac 52:54:00:66:00:02 --address 10.66.0.78 >/dev/null

# uefi NAME MAC WHAT-IT-TELLS [ARG...]
uefi() {
  cp /usr/share/OVMF/OVMF_VARS_4M.fd "/run/rig/$1.vars"
  boot "$1" "$2" "$3" -machine q35 -m 512 -device "virtio-net-pci,netdev=n,mac=$2,bootindex=1,romfile=" \
    -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd -drive "if=pflash,format=raw,file=/run/rig/$1.vars" \
    -serial "file:$RIG_LOGS/$1.log" -fw_cfg name=opt/org.tianocore/IPv6PXESupport,string=n "${@:4}"
}
uefi http 52:54:00:66:00:01 told/10.66.0.77/ -fw_cfg name=opt/org.tianocore/IPv4PXESupport,string=n
grep -q 'url:/ipxe.efi' "$RIG_LOGS/httpd.log" || die "iPXE did not come by HTTP"
! grep -q snponly.efi "$RIG_LOGS/tftp.log" || die "the firmware was told of PXE's file too"
uefi pxe 52:54:00:66:00:02 told/10.66.0.78/
grep -q 'sent /run/boot/snponly.efi to 10.66.0.78' "$RIG_LOGS/tftp.log" || { cat "$RIG_LOGS/tftp.log"; die "nothing came by TFTP"; }
echo "the firmware booted by HTTP and by PXE"
