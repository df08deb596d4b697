#!/bin/bash
# leases.sh: `virsh net-dhcp-leases` and `virsh domifaddr`, by which Terraform and others wait for an address, show our leases.
. "$(dirname "$0")/checks.sh"
stage
mac=52:54:00:81:00:01
files=/var/lib/libvirt/dnsmasq
shows() { virsh net-dhcp-leases "$1" | tee /dev/stderr | grep -F "$2"; }       # NETWORK TEXT
shows_none() { [ -z "$(virsh -q net-dhcp-leases "$1")" ]; }                    # NETWORK
domifaddr() { virsh domifaddr "$1" --source lease | tee /dev/stderr | grep -F "$2"; } # GUEST TEXT

check "no lease, nothing shown" shows_none nat
define_guest web $mac network=nat
need "a guest starts" virsh start web
leased() { vmfabric --json lease list | grep -q $mac; }
need "it has a lease" wait_for $LONG leased
ip=$(vmfabric --json lease list | sed -n 's/.*"address": "\([^"]*\)".*/\1/p' | head -n 1)
check "virsh net-dhcp-leases shows it within a second" within 1 wait_for 5 shows nat "$ip"
check "with MAC address, name and client id" eval "shows nat $mac && shows nat ' web ' && shows nat 01:$mac"
end_of() { vmfabric --json lease list | sed -n 's/.*"expires": "\{0,1\}\([^",]*\).*/\1/p' | head -n 1; }
shown_end() { date -d "$(virsh -q net-dhcp-leases nat | awk '{print $1" "$2}')" +%s; }
expires_alike() {
  local ours theirs
  ours=$(end_of) theirs=$(shown_end)
  case $ours in *[!0-9]*) ours=$(date -d "$ours" +%s) ;; esac
  echo "$ours $theirs"
  [ $((ours - theirs)) -ge -2 ] && [ $((ours - theirs)) -le 2 ]
}
check "it expires when it does" expires_alike
check "virsh domifaddr shows it" domifaddr web "$ip"
check "by MAC address alone, too" eval "virsh net-dhcp-leases nat --mac $mac | grep -F $ip"
check "the file is libvirt's kind of file" eval "python3 -m json.tool $files/vmf-nat.status && [ \"\$(stat -c %a $files/vmf-nat.status)\" = 644 ]"

check "the network is renamed; libvirt drops the file with the old one" vmfabric network set nat name=lan
check "the lease is shown under the new name" eventually shows lan "$ip"
check "somebody undefines it in libvirt" eval 'virsh net-destroy lan; virsh net-undefine lan; true'
check "it comes back, with its lease" eventually shows lan "$ip"
check "the daemon is killed and started" eval 'stop_vmfabricd KILL; rm -f '$files'/vmf-nat.status; start_vmfabricd'
check "the lease is shown" eventually shows lan "$ip"

echo '[ {"ip-address": "10.9.9.9", "mac-address": "52:54:00:99:99:99", "expiry-time": 0} ]' >$files/virbr7.status
before=$(stat -c '%i %Y' $files/virbr7.status)
check "the guest stops and gives its lease back" eval 'virsh destroy web && virsh undefine web'
check "nothing is shown any more" eventually shows_none lan
check "the network goes, and its file" eval 'vmfabric network delete lan && eventually not test -e '$files/vmf-nat.status
check "libvirt's own files stay as they were" [ "$(stat -c '%i %Y' $files/virbr7.status)" = "$before" ]
finish
