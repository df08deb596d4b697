#!/bin/bash
# host-names.sh: the host knows its guests by name, by systemd-resolved, and without it by other means.
. "$(dirname "$0")/checks.sh"
resolved=$("$VMFABRIC_RIG/fetch-resolved") || exit
# /lib is /usr/lib
cp -r "$resolved/usr/." /usr/ && cp -r "$resolved/lib/." /usr/lib/ && cp -r "$resolved/etc/." /etc/ || exit
getent passwd systemd-resolve >/dev/null || useradd --system --no-create-home systemd-resolve
sed -i 's/^hosts:.*/hosts: files resolve [!UNAVAIL=return] dns/' /etc/nsswitch.conf

start_resolved() {
  mkdir -p /run/systemd/resolve /run/systemd/system && chown systemd-resolve: /run/systemd/resolve
  SYSTEMD_LOG_LEVEL=${RESOLVED_LOG-info} /lib/systemd/systemd-resolved >>"$RIG_LOGS/resolved.log" 2>&1 &
  RESOLVED_PID=$!
  wait_for 20 resolvectl status
}
stop_resolved() { kill "$RESOLVED_PID" && wait_for 20 not kill -0 "$RESOLVED_PID"; }
knows() { resolvectl domain "$1" | tee /dev/stderr | grep -qF -- "$2"; } # LINK TEXT
resolves() { getent ahostsv4 "$1" | tee /dev/stderr | grep -q "^$2 "; }   # NAME ADDRESS
upstream_asked() { grep -F "$1" "$RIG_LOGS/internet.dns.log"; }           # NAME

install_vmfabric && start_bus || finish
internet_host
pkill -f 'dnsmasq.*203.0.113.2' # and again, with a log of what it is asked
ip netns exec internet dnsmasq --keep-in-foreground --conf-file=/dev/null --no-hosts --no-resolv --bind-interfaces \
  --listen-address=203.0.113.2 --address=/www.internet.test/203.0.113.2 --pid-file= --user=root --log-queries \
  --log-facility=- >"$RIG_LOGS/internet.dns.log" 2>&1 &
sed -i 's/^#\?DNS=.*/DNS=203.0.113.2/; s/^#\?DNSSEC=.*/DNSSEC=no/' /etc/systemd/resolved.conf
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
need "systemd-resolved runs" start_resolved
need "vmfabricd runs" start_vmfabricd
need "libvirt runs" start_libvirt
check "a network with a domain of its own" vmfabric network create lab --domain lab.internal
check "and a subnet" vmfabric subnet create lab 192.168.77.0/24 --forward nat
check "resolved is told the domain and the reverse zone, for routing alone" eventually eval \
  'knows vmf-lab "~lab.internal" && knows vmf-lab "~77.168.192.in-addr.arpa"'
check "and that nothing else is asked there" eval 'resolvectl default-route vmf-lab | grep no && resolvectl llmnr vmf-lab | grep no'
define_guest web 52:54:00:82:00:01 network=lab
need "a guest starts" eval 'eventually network_active lab && virsh start web'
need "it has a lease" has_lease web
ip=$(guest_ip web)
check "resolvectl query web.lab.internal" eventually eval "resolvectl query web.lab.internal | tee /dev/stderr | grep -F $ip"
check "getent hosts web.lab.internal, as ssh would" eventually resolves web.lab.internal "$ip"
check "the other way round" eval "resolvectl query $ip | grep -F web.lab.internal"
check "ping web.lab.internal" ping -c 1 -W 5 web.lab.internal
check "by TCP, too" eval "resolvectl query --cache=no web.lab.internal && dig +tcp +short @192.168.77.1 web.lab.internal | grep -F $ip"
check "a record that somebody wrote" eval 'vmfabric record create lab db A 192.168.77.200 && eventually resolves db.lab.internal 192.168.77.200'
check "a name that nobody has does not exist" eval '! resolvectl query nobody.lab.internal'
check "none of it was asked of the resolvers outside" eval '! upstream_asked lab.internal && ! upstream_asked 168.192.in-addr'
check "names outside are asked outside, and not here" eval \
  'resolves www.internet.test 203.0.113.2 && resolvectl query www.internet.test --cache=no | tee /dev/stderr | grep -v vmf-lab'
check "our server tells the host nothing else" eval 'dig @192.168.77.1 www.internet.test | tee /dev/stderr | grep "status: REFUSED"'
check "the guest's questions go to the real resolver, not round in a circle" guest_run web 'nslookup www.internet.test 192.168.77.1 | grep "Address: 203.0.113.2"'

check "resolved is restarted" eval 'stop_resolved && start_resolved'
check "and told again" eventually eval 'knows vmf-lab "~lab.internal"'
check "the name resolves" eventually resolves web.lab.internal "$ip"
check "the daemon is killed and started: the name resolves" eval 'stop_vmfabricd KILL; start_vmfabricd && eventually resolves web.lab.internal '"$ip"
check "the network gets another domain" vmfabric network set lab domain=office.internal
check "resolved follows" eventually eval 'knows vmf-lab "~office.internal" && ! knows vmf-lab "~lab.internal"'
check "the name resolves there" eventually resolves web.office.internal "$ip"
check "unknown names in the domain are others'" vmfabric network set lab forward-unknown=yes
check "then the domain is not ours alone, and not told" eventually not knows vmf-lab office.internal

check "without resolved" stop_resolved
sed -i 's/^hosts:.*/hosts: files libvirt dns/' /etc/nsswitch.conf
name=$(virsh -q net-dhcp-leases lab | awk '{print $6}')
check "libnss-libvirt resolves what the guest calls itself ($name)" eval "getent hosts $name | grep -F $ip"
check "the daemon makes no noise about it" eval "! grep -i 'resolved' $RIG_LOGS/vmfabricd.log | grep -E 'WARN|ERROR'"
virsh -q destroy web
finish
