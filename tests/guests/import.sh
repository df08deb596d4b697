#!/bin/bash
# import.sh: libvirt's own `default`, with dnsmasq, leases and running guests, becomes a network of vmfabric's, and is given back.
. "$(dirname "$0")/checks.sh"
install_vmfabric && start_bus && start_libvirt || finish
web=52:54:00:90:00:01 db=52:54:00:90:00:02 off=52:54:00:90:00:03 direct=52:54:00:90:00:04

virsh -q net-define /dev/stdin <<X
<network>
  <name>default</name>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <domain name='default.internal' localOnly='yes'/>
  <dns><host ip='192.168.122.250'><hostname>printer</hostname></host></dns>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'><lease expiry='50' unit='minutes'/></range>
      <host mac='$db' name='db' ip='192.168.122.50'/>
    </dhcp>
  </ip>
  <route address='10.77.0.0' prefix='16' gateway='192.168.122.50'/>
</network>
X
virsh -q net-autostart default
need "libvirt's default network starts, with dnsmasq" virsh net-start default
define_guest web $web network=default
define_guest db $db network=default
define_guest off $off network=default
define_guest direct $direct bridge=virbr0
for guest in web db direct; do need "guest $guest starts" virsh start $guest; done
for guest in web db direct; do need "it has a lease of dnsmasq's" has_lease $guest; done
web_ip=$(guest_ip web) db_ip=$(guest_ip db) direct_ip=$(guest_ip direct)
check "the reserved address is the reserved one" [ "$db_ip" = 192.168.122.50 ]
ends_at() { date -d "$(virsh net-dhcp-leases default | awk -v ip="$web_ip/" 'index($5, ip) == 1 { print $1, $2 }')" +%s; } # as virsh shows it
ends=$(ends_at)
before=$(virsh net-dumpxml default --inactive) web_before=$(virsh dumpxml web --inactive)

need "vmfabricd comes" start_vmfabricd
check "libvirt's network is left alone" eval 'network_active default && vmfabric status; true'
# The plan says what becomes of everything.
says() { grep -qF -- "$1" "$RIG_LOGS/plan" || { cat "$RIG_LOGS/plan"; return 1; }; }
check "vmfabric import-libvirt --dry-run" eval 'vmfabric import-libvirt --dry-run >"$RIG_LOGS/plan"'
sed 's/^/                 /' "$RIG_LOGS/plan"
check "it says whose address is kept" eval "says \"guest 'web', NIC $web, $web_ip: move to the new bridge at once\""
check "what is reserved" says "reserve 192.168.122.50 for $db as db"
check "and what it cannot carry over" says "route to 10.77.0.0/16"
check "nothing has changed" eval '[ "$(virsh net-dumpxml default --inactive)" = "$before" ] && ! vmfabric network show default'

on_bridge() { ip -o link show master "$1" | grep -q "$(tap_of "$2" "$3")"; } # BRIDGE GUEST MAC
begin_ping() { guest_run web 'ping -i 0.1 -W 1 192.168.122.1 >/tmp/ping 2>&1 & echo $! >/tmp/pid'; }
end_ping() { guest_run web 'kill -INT $(cat /tmp/pid); sleep 0.2; tail -n 3 /tmp/ping'; }
lost() { end_ping | tee "$RIG_LOGS/ping" | awk '/transmitted/ { print $1 - $4 }'; }

check "the guest pings its gateway ten times a second meanwhile" begin_ping
began_import=$EPOCHREALTIME
need "vmfabric import-libvirt default" vmfabric import-libvirt default
echo "                 it took $(awk "BEGIN { printf \"%.2f\", $EPOCHREALTIME - $began_import }") s"
check "the guests are on our bridge" eval "on_bridge vmf-default web $web && on_bridge vmf-default db $db && on_bridge vmf-default direct $direct"
check "libvirt's bridge is gone, and its dnsmasq" eval '! ip link show virbr0 && ! pgrep -f dnsmasq/default.conf'
check "the guest reaches its gateway" pings web 192.168.122.1
count=$(lost)
check "at most 20 of its packets are lost (lost: $count)" [ "${count:-99}" -le 20 ]
check "its port has its address" port_is $web addresses "$web_ip"
check "the reserved one too" port_is $db addresses 192.168.122.50
check "leases are kept" eval "vmfabric lease list | grep -F $web_ip"
check "and shown by virsh" eventually eval "virsh net-dhcp-leases default | grep -F $web_ip"
check "with the time that they had left" eval 'echo "$ends $(ends_at)" | awk "{ exit !(\$1 > 0 && \$1 - \$2 < 3 && \$2 - \$1 < 3) }"'
check "a renewal is granted by ours" guest_run web "udhcpc -i eth0 -n -q -r $web_ip -s /bin/true 2>&1 | grep 'lease of $web_ip'"
check "guests reach each other, by name too" eval "pings web $db_ip && pings db web.default.internal"
check "DNS records are there" guest_run web 'nslookup printer.default.internal 192.168.122.1 | grep 192.168.122.250'
check "the guest's definition is what it was" [ "$(virsh dumpxml web --inactive)" = "$web_before" ]
check "that of the guest on the bridge itself names the new one" eval 'virsh dumpxml direct --inactive | grep "source bridge=.vmf-default"'
check "libvirt's network is ours" eval "virsh net-dumpxml default | grep \"forward mode='bridge'\""
check "all is well" eventually vmfabric status

check "libvirtd restarts" eval 'stop_libvirt && start_libvirt && eventually libvirt_is connected'
check "the guests are where they were" eval "on_bridge vmf-default web $web && on_bridge vmf-default direct $direct && ! ip link show virbr0"
check "the guest reaches its gateway" pings web 192.168.122.1
check "the guest that was off starts on our network" eval "virsh start off && eventually port_is $off status active && virsh destroy off"
check "a second import of it is refused" fails_saying "already" vmfabric import-libvirt default

virsh -q net-define /dev/stdin <<<"<network><name>bad</name><bridge name='virbr7'/><ip address='192.168.77.1' prefix='24'/></network>"
extra=52:54:00:90:00:05
check "a guest has a NIC on another network" eval "virsh net-start bad && virsh attach-device direct /dev/stdin <<<\"\$(nic_xml $extra network=bad)\" && on_bridge virbr7 direct $extra"
check "whose take-over fails half-way, for somebody's link has the new bridge's name" eval \
  'ip link add vmf-bad type veth peer name other0 && fails_saying "vmf-bad|all is as it was before" vmfabric import-libvirt bad'
check "it is given back, and the guest is on it" eval "network_active bad && on_bridge virbr7 direct $extra && ! vmfabric network show bad"
check "libvirt lets go of it, and all is well" eval "virsh detach-device direct /dev/stdin <<<\"\$(nic_xml $extra network=bad)\" && virsh net-destroy bad && virsh net-undefine bad && ip link del vmf-bad && eventually vmfabric status"

check "ping again" begin_ping
began_import=$EPOCHREALTIME
virsh -q net-define /dev/stdin <<<"<network><name>taker</name><bridge name='virbr0'/><ip address='192.0.2.1'/></network>"
check "what cannot be given back stays ours, with the reason" \
  fails_saying "has its bridge by now|net-edit taker" vmfabric import-libvirt --undo default
check "and works on" vmfabric network show default
virsh -q net-undefine taker
need "vmfabric import-libvirt --undo default" vmfabric import-libvirt --undo default
echo "                 it took $(awk "BEGIN { printf \"%.2f\", $EPOCHREALTIME - $began_import }") s"
check "the guests are on libvirt's bridge" eval "on_bridge virbr0 web $web && on_bridge virbr0 db $db && on_bridge virbr0 direct $direct"
check "our network is gone" eval '! vmfabric network show default && ! ip link show vmf-default'
check "libvirt's is defined as it was, and active" eval '[ "$(virsh net-dumpxml default --inactive)" = "$before" ] && network_active default && virsh net-info default | grep "Autostart: *yes"'
check "dnsmasq knows the leases" eventually eval "virsh net-dhcp-leases default | grep -F $web_ip"
check "the guest reaches its gateway" eventually pings web 192.168.122.1
count=$(lost)
check "few of its packets are lost (lost: $count)" [ "${count:-999}" -le 120 ]
check "it stays" eval 'stop_libvirt && start_libvirt && network_active default && pings web 192.168.122.1'

killed_within() {
  vmfabric import-libvirt default &
  local pid=$!
  wait_for 10 not ip link show virbr0
  stop_vmfabricd KILL
  ! wait $pid
}
check "the daemon is killed in the middle of a take-over" killed_within
check "started again it ends it, one way or the other: the guest reaches its gateway" eval 'start_vmfabricd && LONG=90 eventually pings web 192.168.122.1'
whose() { if vmfabric network show default >/dev/null 2>&1; then echo vmf-default; else echo virbr0; fi; }
check "all guests are on one bridge ($(whose))" eval "on_bridge $(whose) web $web && on_bridge $(whose) db $db && on_bridge $(whose) direct $direct"

check "from a file, where libvirt has none" eval '
  sed "s/default/other/g; s/192\.168\.122/192.168.99/g; s/virbr0/virbr5/" <<<"$before" >"$RIG_LOGS/other.xml"
  vmfabric import-libvirt --from-xml "$RIG_LOGS/other.xml" && eventually network_active other && vmfabric subnet show other | grep 192.168.99.1'

cat >"$RIG_LOGS/rich.xml" <<X
<network>
  <name>rich</name>
  <forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward>
  <bridge name='virbr6' stp='on' delay='0'/>
  <mtu size='1400'/>
  <domain name='rich.internal' localOnly='yes'/>
  <dns>
    <forwarder domain='corp.example' addr='203.0.113.53'/>
    <txt name='note' value='hello world'/>
    <host ip='192.168.98.9'><hostname>nas</hostname></host>
    <srv service='ldap' protocol='tcp' target='nas' port='389' priority='1' weight='2'/>
  </dns>
  <port isolated='yes'/>
  <ip address='192.168.98.1' prefix='24'>
    <tftp root='/srv/tftp'/>
    <dhcp>
      <range start='192.168.98.100' end='192.168.98.199'><lease expiry='10' unit='minutes'/></range>
      <bootp file='pxelinux.0'/>
    </dhcp>
  </ip>
</network>
X
check "one with much to say says what is left out" eval 'vmfabric import-libvirt --from-xml "$RIG_LOGS/rich.xml" >"$RIG_LOGS/plan" && says "nat port" && says "tftp root"'
check "its records are served" eval 'vmfabric record list rich | tr -s " " >"$RIG_LOGS/plan"; says "_ldap._tcp - SRV 1 2 389 nas" && says "note - TXT" && says "nas - A 192.168.98.9"'
check "its MTU, isolation and forwarder are kept" eval 'vmfabric network show rich | tr -s " " >"$RIG_LOGS/plan"; says "mtu 1400" && says "isolated on" && says "corp.example=203.0.113.53" && eventually eval "ip link show vmf-rich | grep -w \"mtu 1400\""'
check "its lease time and boot file too" eval 'vmfabric subnet show rich | tr -s " " >"$RIG_LOGS/plan"; says "lease time 600 s" && says "file=pxelinux.0" && says "192.168.98.100-192.168.98.199"'
rich=52:54:00:90:00:06
check "a guest of it boots with all that" eval 'define_guest rich $rich network=rich && eventually network_active rich && virsh -q start rich && has_lease rich'
check "its tap is isolated, of that MTU" eval 'nft list set bridge vmfabric isolated | grep -w "$(tap_of rich $rich)" && ip link show "$(tap_of rich $rich)" | grep -w "mtu 1400"'
check "it asks for the records" guest_run rich 'nslookup -type=txt note.rich.internal 192.168.98.1 | grep "hello world" && nslookup -type=srv _ldap._tcp.rich.internal 192.168.98.1 | grep "1 2 389 nas"'
check "hostile XML is refused in words" eval 'echo "<network><name>x</name><bridge name=\"a/b\"/></network>" >"$RIG_LOGS/bad.xml"; fails_saying "a/b" vmfabric import-libvirt --from-xml "$RIG_LOGS/bad.xml"'
finish
