#!/bin/bash
# ufw.sh: a real ufw that denies by default, across its reload; what its administrator said stays.
. "$(dirname "$0")/lib.sh"
theirs() { { iptables -S; ip6tables -S; } | grep -v 'comment vmfabric' | sort; ufw status verbose; md5sum /etc/ufw/*rules; }
ours() { { iptables -S; ip6tables -S; } | grep 'comment vmfabric'; }
install_vmfabric && start_bus && internet_host || finish
need "ufw is there" ufw --force reset
ufw default deny incoming && ufw default deny routed && ufw allow 22/tcp && need "ufw is enabled" ufw --force enable
theirs >"$RIG_LOGS/theirs"
need "the daemon starts" start_vmfabricd
check "entries of ours are there" eventually ours
need "the guests" guests
guests_work "with ufw"
check "the plan is empty" eventually plan_is_empty
check "what is ufw's is as it was" cmp "$RIG_LOGS/theirs" <(theirs)
check "what the administrator denies" eval 'ufw prepend deny in on vmf-nat to any port 53 && eventually plan_is_empty'
check "is denied, ours notwithstanding" not resolves web 192.168.123.1
check "and allowed again" ufw delete deny in on vmf-nat to any port 53
check "ufw reloads" ufw reload
check "entries of ours are there again" eventually ours
guests_work "after a reload"
theirs >"$RIG_LOGS/theirs"
check "the daemon stops" stop_vmfabricd
check "--clean-up" clean_up_but_libvirt
check "nothing of ours is left" not ours
check "what is ufw's is as it was" cmp "$RIG_LOGS/theirs" <(theirs)
finish
