#!/bin/bash
# json.sh: vmfabric(1) names every key that the commands print with --json, each in its command's paragraph.
. "$(dirname "$0")/../guests/checks.sh"
stage
web=52:54:00:90:00:01
virsh -q net-define /dev/stdin <<<"<network><name>old</name><forward mode='open'/><bridge name='virbr9' delay='3'/><ip address='192.168.99.1' prefix='24'/></network>"
define_guest web $web network=nat || finish
need "a guest" virsh -q start web
need "it has a lease" has_lease web
need "resources of every kind" eval 'vmfabric security-group create web --rule "egress any" && vmfabric address-group create dc 192.0.2.0/24 && vmfabric record create nat www CNAME web'
vmfabric watch --json >"$RIG_LOGS/watch" &
check "watch says what changes" eventually eval 'vmfabric network set nat dhcp-option=ntp-servers=192.0.2.$((RANDOM % 200 + 1)) && [ -s "$RIG_LOGS/watch" ]'
echo '[[networks]]
name = "nat"
mtu = 1400' >"$RIG_LOGS/lab.toml"
python3 - "$VMFABRIC_REPO/docs/man/vmfabric.1" "$RIG_LOGS" $web >"$RIG_LOGS/keys" <<'P'
import json, re, subprocess, sys
page, logs, web = sys.argv[1:]
text = open(page).read().split(".SH JSON\n")[1].split(".SH DOCUMENTS")[0].replace("\\-", "-")
named = {}
for paragraph in text.split(".TP\n")[1:]:
    bold = re.findall(r"\\fB(.*?)\\fR", paragraph)
    named[bold[0]] = set(bold[1:])
commands = ["status", "network list", "network show nat", "subnet list", "subnet show nat", "port list", f"port show {web}",
    "security-group list", "security-group show default", "security-group rule add web ingress tcp 22", "address-group list",
    "address-group show dc", "record list", "lease list", "plan", f"explain {web}", f"trace --from {web} --to 192.0.2.1 --proto tcp --port 80",
    "log-level", "topology", "doctor", f"apply --dry-run -f {logs}/lab.toml", "import-libvirt --dry-run", "watch"]
def keys(value, so_far):
    if isinstance(value, list):
        for item in value:
            keys(item, so_far)
    elif isinstance(value, dict):
        for key, item in value.items():
            so_far.add(key)
            if key not in ("drops", "properties"):  # by reason; a resource's own
                keys(item, so_far)
    return so_far
seen = set()
for command in commands:
    if command == "watch":
        documents = [json.loads(line) for line in open(f"{logs}/watch")]
    else:
        answer = subprocess.run(["vmfabric", "--json", *command.split()], stdout=subprocess.PIPE, text=True)
        documents = json.loads(answer.stdout)
    paragraph = command.split()[0]
    found = keys(documents, set())
    assert found, f"{command} prints nothing that could be compared: {documents}"
    unnamed = found - named[paragraph]
    if paragraph == "topology":
        unnamed -= named["network"] | named["subnet"]
    assert not unnamed, f"vmfabric --json {command}: {sorted(unnamed)} are not in vmfabric(1)"
    seen.add(paragraph)
assert set(named) - seen == {"logs"}, set(named) - seen
P
check "vmfabric(1) names every key" eval "[ $? = 0 ]"
finish
