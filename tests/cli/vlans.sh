#!/bin/bash
# vlans.sh: the commands of docs/vlans.md print what stands below them there. The switch is a network namespace.
. "$(dirname "$0")/console.sh"
prepare
ip netns add switch && ip -n switch link set lo up &&
  ip link add eth1 address 02:00:00:00:00:01 type veth peer name port7 address 02:00:00:00:00:07 mtu 9000 netns switch &&
  ip -n switch link set port7 up && ip link set eth1 up || exit
shown vlans.md /etc/vmfabric/vmfabricd.toml >/etc/vmfabric/vmfabricd.toml
shown vlans.md vlans.toml >vlans.toml
begin
start_libvirt && wait_for 90 vmfabric status || exit
define_guest www 52:54:00:ab:cd:03 network=dmz || exit
define_guest firewall 52:54:00:ab:cd:04 network=users || exit
GUEST_XML="<metadata><vmfabric:domain xmlns:vmfabric='https://vmfabric.org/xmlns/domain/1.0'>
  <vmfabric:interface mac='52:54:00:ab:cd:08' vlan='77'/></vmfabric:domain></metadata>" \
  define_guest camera 52:54:00:ab:cd:08 bridge=vmf-lan || exit

# `www` looks for a neighbour that is not there.
(wait_lease www 200 && guest_run -t 100 www '(ping 10.10.0.99 >/dev/null 2>&1 &) </dev/null') >/dev/null &
tcpdump() { timeout 150 tcpdump "$@"; } # so that it is told where nothing comes

# What a person finds done when they look, the daemon does a moment after it hears of it.
ip() {
  local before
  before=$(vmfabric status)
  command ip "$@" || return
  case $* in
    *'dev eth1' | *' name '* | *'eth1 mtu'*) wait_for 30 eval '[ "$(vmfabric status)" != "$before" ]' ;;
  esac
}
export -f ip tcpdump
run vlans.md
exit $failed
