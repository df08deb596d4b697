#!/bin/bash
# Run on two hosts, A and B, whose vec0 are cabled together: VLANs span them, and stay apart.
. "$(dirname "$0")/lib.sh"
me=$(hostname)
case $me in A) other=B mine=1 theirs=2 ;; B) other=A mine=2 theirs=1 ;; esac

# meet POINT: until the other host is there, too
meet() {
  touch "/rigshare/$me.$1"
  wait_for 120 test -e "/rigshare/$other.$1" || { echo "FAIL  $other did not come to '$1'"; failed=$((failed + 1)); finish; }
}

stage "vmfabricd" start_host '[physical_networks.lan]' 'interface = "vec0"' 'vlans = "10-99"'
stage "networks" eval "vmfabric network create v10 --physical lan --vlan 10 --port-security off && vmfabric network create v20 --physical lan --vlan 20 --port-security off &&
  vmfabric network create flat --physical lan --port-security off" >/dev/null
# All in one subnet: what is apart is apart by VLAN alone.
stage "VLAN 10" guest x$mine "network='v10'" 10.0.0.1$mine/24
stage "VLAN 20" guest y$mine "network='v20'" 10.0.0.2$mine/24
stage "flat" guest f$mine "network='flat'" 10.0.0.3$mine/24
check "$me: the trunk carries what is in use" same "1u 10 20" uplink_vlans vec0
meet ready
check "$me: VLAN 10 reaches VLAN 10 on $other" pings x$mine 10.0.0.1$theirs
check "$me: … with full frames" ip netns exec x$mine ping -q -c 2 -i 0.2 -W 5 -M do -s 1472 10.0.0.1$theirs
check "$me: VLAN 20 reaches VLAN 20 on $other" pings y$mine 10.0.0.2$theirs
check "$me: flat reaches flat on $other" pings f$mine 10.0.0.3$theirs
check "$me: VLAN 10 does not reach VLAN 20 on $other" silent x$mine 10.0.0.2$theirs
check "$me: VLAN 20 does not reach VLAN 10 on $other" silent y$mine 10.0.0.1$theirs
check "$me: flat does not reach VLAN 10 on $other" silent f$mine 10.0.0.1$theirs
check "$me: VLAN 10 does not reach flat on $other" silent x$mine 10.0.0.3$theirs
meet pinged

stage "captures" eval "capture x$mine eth0 && capture y$mine eth0 && capture f$mine eth0"
meet listening
send x$mine eth0 ff:ff:ff:ff:ff:ff "from-$me-in-10"
send y$mine eth0 01:00:5e:01:02:03 "from-$me-in-20"
send f$mine eth0 ff:ff:ff:ff:ff:ff "from-$me-flat"
# The last frame comes after the others, on the one cable that there is.
check "$me: VLAN 10 hears VLAN 10 of $other" wait_for 30 saw x$mine eth0 "from-$other-in-10"
check "$me: VLAN 20 hears VLAN 20 of $other" wait_for 30 saw y$mine eth0 "from-$other-in-20"
check "$me: flat hears flat of $other" wait_for 30 saw f$mine eth0 "from-$other-flat"
stage "the end of the captures" end_captures
check "$me: VLAN 10 hears nothing else" eval "unseen x$mine eth0 from-$other-in-20 && unseen x$mine eth0 from-$other-flat"
check "$me: VLAN 20 hears nothing else" eval "unseen y$mine eth0 from-$other-in-10 && unseen y$mine eth0 from-$other-flat"
check "$me: flat hears nothing else" eval "unseen f$mine eth0 from-$other-in-10 && unseen f$mine eth0 from-$other-in-20"
meet heard

# One host has no guest in VLAN 10 any more: that host's uplink does not let VLAN 10 in.
if [ $me = A ]; then
  gone x1
  check "A: VLAN 10 left the uplink" same "1u 20" uplink_vlans vec0
  meet left
else
  meet left
  check "B: nobody answers in VLAN 10" silent x2 10.0.0.11
  check "B: VLAN 20 goes on" pings y2 10.0.0.21
fi
meet end
finish
