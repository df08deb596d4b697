"""A real guest that sends from its first instruction, and never stops: through libvirt's start, hot-plug, changes of
policy, reset, and all that happens to the daemon."""

import phases
from phases import *

BRIDGE = "vmf-lan"
for vid in (10, 20):
    vmfabric("network", "create", f"v{vid}", "--physical", "lan", "--vlan", str(vid))
    vmfabric("subnet", "create", f"v{vid}", f"10.0.{vid}.0/24", "--dhcp", "--forward", "nat")
vmfabric("security-group", "create", "web", "--rule", "egress any", "--rule", "ingress tcp 80")
witnesses = [Guest(f"w{vid}{n}", f"v{vid}", BRIDGE, f"10.0.{vid}.1{n}", number=vid + n).start() for vid in (10, 20) for n in (1, 2)]
Sniffer("wire", "wire", "outside", all=True)
Sniffer("host", BRIDGE, all=True), Sniffer("gateway", f"{BRIDGE}.10", all=True), Sniffer("gateway20", f"{BRIDGE}.20", all=True)
for vantage in Vantage.all:
    vantage.watch = watch


class Nic:
    """A NIC of the guest, whose port is there before it."""

    def __init__(self, name, address, number):
        self.name, self.address, self.mac = name, address, f"52:54:00:00:99:{number:02x}"
        self.local = link_local(self.mac)
        vmfabric("port", "create", "v10", "--name", name, "--mac", self.mac, "--address", address)

    def frames(self):
        """Each unlawful one beside a lawful one, as shout.c reads them."""
        pairs = [frame for bad in unlawful_of(self, witnesses[0]) for frame in (bad, lawful_of(self))]
        return b"".join(struct.pack("<H", len(frame)) + frame for frame in pairs)

    @property
    def tap(self):
        named = lambda: next(p["tap"] for p in json.loads(vmfabric("port", "list", "--json")) if p["name"] == self.name)
        assert wait(named), f"{self.name} has no tap"
        return named()

    def goes_on(self, frames=300):
        sent = lambda: int(open(f"/sys/class/net/{self.tap}/statistics/rx_packets").read())
        goal = sent() + frames
        if not wait(lambda: sent() >= goal, 120):
            raise RuntimeError("it does not send")

    def is_heard(self):
        return any(frame[6:12] == mac(self.mac) for _, frame, _ in list(lawful.get(phases.phase, [])))


eve, hot = Nic("eve", "10.0.10.66", 1), Nic("hot", "10.0.10.67", 2)
root = f"{LOGS}/shout"
os.makedirs(root)
run("cc", "-O2", "-Wall", "-static", "-o", f"{root}/init", "shout.c")
for nic in (eve, hot):
    with open(f"{root}/frames-{nic.mac.replace(':', '')}", "wb") as file:
        file.write(nic.frames())
run("sh", "-c", f"cd {root} && find . | cpio -o -H newc --quiet >{LOGS}/shout.cpio")
rig = lambda command: run("bash", "-c", f'. "$VMFABRIC_RIG/lib.sh"; {command}')
network_is_there = lambda: "yes" in next((l for l in run("virsh", "net-list").splitlines() if " v10 " in l), "")
assert wait(network_is_there), "libvirt has no network v10"
rig(f"VMFABRIC_GUEST={LOGS}/shout.cpio define_guest eve {eve.mac} network=v10")
threading.Thread(target=keep_reading, daemon=True).start()

enter("start")
run("virsh", "start", "eve")
heard = wait(eve.is_heard, 120)
eve.goes_on()
judge("from the first instruction of a guest that libvirt starts", "start", heard=True)
enter("hot-plug")
run("bash", "-c", f'. "$VMFABRIC_RIG/lib.sh"; nic_xml {hot.mac} network=v10 | virsh attach-device eve /dev/stdin')
heard = wait(hot.is_heard, 120)
table.row("a NIC that is hot-plugged is heard", heard)
judge("hot-plug", "hot-plug", heard=True)
enter("changes")
for change in (["--security-group", "web"], ["--no-security-group"], ["security-group="], ["isolated=yes"], ["isolated="],
               ["--allowed-address", "10.0.10.77"], ["allowed-address="], ["address=10.0.10.68"], ["address=10.0.10.66"]):
    vmfabric("port", "set", "eve", *change)
    eve.goes_on(100)
judge("while groups and addresses of its port change", "changes", heard=True)
enter("reset")
run("virsh", "reset", "eve")
eve.goes_on()
judge("when it is reset", "reset", heard=True)
for signal in (15, 9):
    stopped = enter(f"stop {signal}")
    stop_daemon(signal)
    phases.wait(eve.is_heard)
    judge(f"when the daemon ends by signal {signal}, and without it", stopped, heard=True)
    started = enter(f"start {signal}")
    start_daemon()
    eve.goes_on()
    judge("when it starts again", started, heard=True)
enter("upgrade")
run("sh", "-c", "cd /usr/sbin && mv vmfabricd vmfabricd.former && ln vmfabricd.former vmfabricd")
stop_daemon(15)
start_daemon()
eve.goes_on()
judge("when its program is replaced, as by an upgrade", "upgrade", heard=True)
enter("again")
run("virsh", "destroy", "eve")
run("virsh", "start", "eve")
heard = wait(eve.is_heard, 120)
judge("when it is started again", "again", heard=True)
enter("unplugged")
stop_daemon(9)
run("virsh", "destroy", "eve")
refused = subprocess.run(["virsh", "start", "eve"], capture_output=True, text=True)
table.row("without the daemon it does not start", refused.returncode != 0 and "vmfabric" in refused.stderr, refused.stderr)
judge("… nor send", "unplugged", silent=False)
start_daemon()
enter("control")
vmfabric("port", "set", "eve", "--port-security", "off")
run("virsh", "start", "eve")
seen_by = lambda: {v for v, _, _ in list(unlawful.get("control", []))}
wait(lambda: seen_by() >= {"w101", "w102", "wire"}, 120)
table.row(f"control: without port security the same frames are seen ({len(unlawful.get('control', []))} times)", seen_by() >= {"w101", "w102", "wire"})
ended.set()
table.finish()
