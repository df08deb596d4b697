#!/bin/bash
# cli.sh: documents, topology, doctor and completions, as a person at a shell has them; no libvirt needed.
. "$VMFABRIC_RIG/lib.sh"
failed=0
check() { local what=$1; shift; if "$@" >"$RIG_LOGS/out" 2>&1; then echo "ok    $what"; else echo "FAIL  $what: $*"; sed 's/^/      /' "$RIG_LOGS/out"; failed=1; fi; }
status() { local want=$1; shift; "$@"; local got=$?; [ $got = "$want" ] || { echo "status $got, not $want"; return 1; }; }
says() { local want=$1; shift; "$@" 2>&1 | tee "$RIG_LOGS/said" | grep -qF -- "$want" || { cat "$RIG_LOGS/said"; return 1; }; }
PWD0=$(cd "$(dirname "$0")/../.." && pwd)
cd "$(mktemp -d)" || exit
install_vmfabric && start_bus || exit

check "doctor: the daemon does not run, and it says so" says "vmfabricd does not run" vmfabric doctor
check "doctor: status 1 without the daemon" status 1 vmfabric doctor --json
start_vmfabricd || exit
wait_for 20 vmfabricd_answers
check "doctor: it asks the daemon now" says '"daemon_running": true' vmfabric doctor --json
rm /etc/libvirt/hooks/qemu.d/vmfabric
check "doctor: a hook that is missing" says "/etc/libvirt/hooks/qemu.d/vmfabric is missing" vmfabric doctor

cat >lab.toml <<T
[[security_groups]]
name = "web"
rules = ["egress any", "ingress tcp 80"]

[[networks]]
name = "lab"
security_groups = ["web"]
dns_records = ["www A 10.77.0.9"]

[[subnets]]
network = "lab"
cidr = "10.77.0.0/24"
forward = "nat"

[[ports]]
name = "db"
network = "lab"
mac = "52:54:00:77:00:01"
addresses = ["10.77.0.50"]
T
check "apply --dry-run: what would change, on the host too" says "vmf-lab" vmfabric apply -f lab.toml --dry-run
check "apply --dry-run: status 8" status 8 vmfabric apply -f lab.toml --dry-run
check "apply --dry-run changes nothing" status 3 vmfabric network show lab
check "apply asks, and without anybody there says what to do" status 2 setsid vmfabric apply -f lab.toml
check "apply" says "Done: 4 created, 0 changed, 0 deleted." vmfabric apply -f lab.toml --yes
check "apply again: nothing to do" says "Nothing to do" vmfabric apply -f lab.toml
check "the host has it" wait_for 20 eval 'ip -br address show vmf-lab | grep -q 10.77.0.1/24'
for format in toml yaml json; do
  vmfabric export --format $format >export.$format || failed=1
  check "export as $format, applied: nothing to do" says "Nothing to do" vmfabric apply -f export.$format --prune
  check "and from standard input" says "Nothing to do" eval "vmfabric apply -f - <export.$format"
done
printf '[[networks]]\nname = "red"\n\n[[ports]]\nname = "x"\nnetwork = "lab"\nmac = "52:54:00:77:00:01"\n' >bad.toml
check "one fault: refused with its place" says "bad.toml:4: ports[0]: MAC address 52:54:00:77:00:01 is used already" vmfabric apply -f bad.toml --yes
check "and nothing of it is done" status 3 vmfabric network show red
printf 'networks:\n- name: red\n  colour: blue\n' >bad.yaml
check "an unknown key is refused by name" says "bad.yaml:3: networks[0].colour: unknown field" vmfabric apply -f bad.yaml --yes
# At a terminal it asks, and takes no for an answer.
sed 's/10.77.0.50/10.77.0.51/' lab.toml >new.toml
check "at a terminal: no" eval 'echo n | script -qec "vmfabric apply -f new.toml" /dev/null | grep -q "Apply these changes"'
check "then nothing is changed" says 10.77.0.50 vmfabric port show db
check "at a terminal: yes" eval 'echo y | script -qec "vmfabric apply -f new.toml" /dev/null | grep -q "Done: 0 created, 1 changed"'
check "then it is" says 10.77.0.51 vmfabric port show db
# The daemon's death in between keeps all or nothing.
stop_vmfabricd KILL; start_vmfabricd; wait_for 20 vmfabricd_answers
check "after a kill: nothing to do" says "Nothing to do" vmfabric apply -f new.toml

check "topology as a tree" says "port db  52:54:00:77:00:01  10.77.0.51  down" vmfabric topology
check "in ASCII where the locale is" says '`- network' env LC_ALL=C vmfabric topology
check "in UTF-8 where that is" says '└─ network' env LC_ALL=C.UTF-8 vmfabric topology
check "as a drawing" eval 'vmfabric topology --svg map.svg && python3 -c "import xml.dom.minidom as m; m.parse(\"map.svg\")" && grep -q 10.77.0.51 map.svg'

# Completions, each by its shell.
cat >bash.sh <<'B'
. /usr/share/bash-completion/bash_completion 2>/dev/null
. /usr/share/bash-completion/completions/vmfabric
COMP_WORDS=(vmfabric network show l) COMP_CWORD=3 COMP_LINE='vmfabric network show l' COMP_POINT=23 COMP_TYPE=9
_clap_complete_vmfabric vmfabric l show
printf '%s\n' "${COMPREPLY[@]}"
B
check "bash completes the network's name" eval 'bash bash.sh | grep -qx "lab *"'
cat >zsh.sh <<'Z'
zmodload zsh/zpty
zpty z 'TERM=dumb PS1="> " zsh -f -i'
zpty -w z 'autoload -Uz compinit; compinit -u -D; print rea""dy'
zpty -r z line '*ready*'
zpty -w -n z $'vmfabric port show d\t'
repeat 100; do
  while zpty -r -t z chunk; do text+=$chunk; done
  [[ $text == *"port show db"* ]] && exit 0
  sleep 0.1
done
print -r -- $text; exit 1
Z
check "zsh completes the port's name" timeout 60 zsh zsh.sh
check "fish completes the network's name" eval 'fish -c "complete -C \"vmfabric network show l\"" | grep -q "^lab"'
check "and subcommands" eval 'fish -c "complete -C \"vmfabric top\"" | grep -q "^topology"'
for page in "$PWD0"/docs/man/*.[158]; do
  check "${page##*/} has no fault" eval "[ -z \"\$(mandoc -Tlint -Wwarning $page; LC_ALL=C.UTF-8 MANROFFSEQ= man --warnings=all -l $page 2>&1 >/dev/null)\" ] || { mandoc -Tlint -Wwarning $page; false; }"
done
coloured() { grep -q $'\e\\['; }
check "colours at a terminal" eval 'script -qec "vmfabric network list" /dev/null | coloured'
check "none where NO_COLOR is set" eval '! script -qec "NO_COLOR=1 vmfabric network list" /dev/null | coloured'
check "none to a program" eval '! vmfabric network list | coloured && ! script -qec "vmfabric --json network list" /dev/null | coloured'
stop_vmfabricd TERM
check "without the daemon nothing is started, and nothing hangs" eval 'timeout 5 fish -c "complete -C \"vmfabric network show l\"" >/dev/null'
exit $failed
