# power-cut-check.sh: on the machine that was cut off, booted again: every lease that is told of in /rig/in/told is there.
. "$VMFABRIC_RIG/lib.sh"
wait_for 120 vmfabricd_answers || { journalctl -b -u vmfabricd --no-pager; die "no vmfabricd"; }
vmfabric --json lease list >/run/rig/leases.json || exit
python3 - <<'P'
import json, sys
told = {}
for line in open("/rig/in/told"):
    kind, mac, *rest = line.split()
    told[mac] = (rest[0], int(rest[1])) if kind == "ACK" else None
leases = {lease["mac"]: lease for lease in json.load(open("/run/rig/leases.json"))}
print("a lease:", next(iter(leases.values()), None))
held = {mac: lease for mac, lease in told.items() if lease}
wrong = []
for mac, (address, until) in held.items():
    lease = leases.get(mac)
    if lease is None or lease["address"] != address or lease["expires"] < until - 1:
        wrong.append((mac, address, until, lease))
print(f"{len(held)} leases were acknowledged and not given back; {len(wrong)} of them are lost", *wrong, sep="\n")
sys.exit(bool(wrong) or len(held) < 5)
P
