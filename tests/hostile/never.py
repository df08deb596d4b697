"""Never open by accident: a process owns a tap and never stops sending, lawful frames and unlawful ones, while every other
port, the uplink and the host are watched, through all that a host goes through. `existing`: on a bridge that is not ours,
what is seen before anybody is told of the tap is measured."""

import mmap

import phases
from phases import *

existing = sys.argv[1:] == ["existing"]
BRIDGE = "br0" if existing else "vmf-lan"
subnet = ["--no-dhcp", "--forward", "none"] if existing else ["--dhcp", "--forward", "nat"]
for vid in (10, 20):
    vmfabric("network", "create", f"v{vid}", "--physical", "lan", "--vlan", str(vid))
    vmfabric("subnet", "create", f"v{vid}", f"10.0.{vid}.0/24", *subnet)
vmfabric("network", "create", "flat", "--physical", "lan")
vmfabric("security-group", "create", "web", "--rule", "egress any", "--rule", "ingress tcp 80")
witnesses = [Guest(f"w{vid}{n}", f"v{vid}", BRIDGE, f"10.0.{vid}.1{n}", number=vid + n).start() for vid in (10, 20) for n in (1, 2)]
witnesses.append(Guest("f1", "flat", BRIDGE, None).start())
Sniffer("wire", "wire", "outside", all=True)
if existing:
    Sniffer("host", BRIDGE, all=True)
else:
    Sniffer("host", BRIDGE, all=True), Sniffer("gateway", f"{BRIDGE}.10", all=True), Sniffer("gateway20", f"{BRIDGE}.20", all=True)

for vantage in Vantage.all:
    vantage.watch = watch
class Sender:
    """A process that sends these without end."""

    def __init__(self, guest):
        self.shared = mmap.mmap(-1, 8)
        good, frames = lawful_of(guest), unlawful_of(guest, witnesses[0])
        self.pid = os.fork()
        if self.pid == 0:
            n = 0
            while True:
                for frame in (frames[n % len(frames)], good):
                    try:
                        os.write(guest.fd, frame)
                    except OSError:  # its tap is down
                        time.sleep(0.001)
                n += 1
                self.shared[:8] = n.to_bytes(8, "big")
                time.sleep(0.0005)

    @property
    def sent(self):
        return int.from_bytes(self.shared[:8], "big")

    def goes_on(self, frames=300):
        goal = self.sent + frames
        if not wait(lambda: self.sent >= goal):
            raise RuntimeError("it does not send")

    def stop(self):
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


def measure(text, name, began):
    seen = unlawful.get(name, []) + lawful.get(name, [])
    last = max((t for _, _, t in seen), default=began)
    where = sorted({v for v, _, _ in seen})
    bad = unlawful.get(name, [])
    bad_last = max((t for _, _, t in bad), default=began)
    print(f"measured: {text}: {len(seen)} frames seen by {where or 'nobody'}, the last {1000 * (last - began):.0f} ms after the tap "
          f"joined; {len(bad)} of them unlawful, the last {1000 * (bad_last - began):.0f} ms after", flush=True)


eve = Guest("eve", "v10", BRIDGE, "10.0.10.66", number=0x66)
eve.watch = watch
sender = Sender(eve)
threading.Thread(target=keep_reading, daemon=True).start()

enter("tap")
sender.goes_on()
enter("plugged")
began = time.monotonic()
eve.plug()
sender.goes_on()
if existing:
    measure("on a bridge that is not ours, before `start`, as long as the test waited", "plugged", began)
else:
    # The daemon sees the tap of a port that waits for it, so that what is lawful may pass already.
    judge("on the bridge and up, before its guest starts", "plugged")
enter("start")
eve.hook("start", "eve")
enter("runs")
sender.goes_on()
if existing:
    measure("while the hook binds it", "start", began)
else:
    judge("while the hook binds it", "start")
judge("when it runs", "runs", heard=True)
enter("changes")
for change in (["--security-group", "web"], ["--no-security-group"], ["security-group="], ["isolated=yes"], ["isolated="],
               ["--allowed-address", "10.0.10.77", "--allowed-address", "fd66::/64"], ["allowed-address="], ["address=10.0.10.67"], ["address=10.0.10.66"]):
    vmfabric("port", "set", "eve", *change)
    sender.goes_on(100)
vmfabric("network", "set", "v10", "--security-group", "web")
sender.goes_on(100)
vmfabric("network", "set", "v10", "security-group=")
vmfabric("security-group", "rule", "add", "web", "ingress", "udp", "53")
sender.goes_on(100)
judge("while its groups, addresses and its network's policy change", "changes", heard=True)
for signal in (15, 9, 9):
    enter(f"stop {signal}")
    stop_daemon(signal)
    sender.goes_on(600)
    judge(f"when the daemon ends by signal {signal}, and without it", phases.phase, heard=True)
    enter(f"begin {signal}")
    start_daemon()
    sender.goes_on(300)
    judge("when it starts again", phases.phase, heard=True)
enter("killed amid changes")
for n in range(4):
    changing = subprocess.Popen(["vmfabric", "port", "set", "eve", *(["--security-group", "web"] if n % 2 else ["security-group="])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = sender.sent
    wait(lambda: sender.sent > before + 10 * n)
    stop_daemon(9)
    changing.wait()
    start_daemon()
sender.goes_on()
judge("when it is killed amid changes and starts again, four times", phases.phase)
enter("rules gone")
run("nft", "delete", "table", "bridge", "vmfabric")
began = time.monotonic()
assert wait(lambda: "drop_mac" in run("nft", "list", "table", "bridge", "vmfabric", check=False), 90)
mended = time.monotonic() - began
until_seen = max((t for _, _, t in unlawful.get(phases.phase, [])), default=began) - began
print(f"measured: an administrator deletes our table: {len(unlawful.get(phases.phase, []))} unlawful frames seen, the last {until_seen * 1000:.0f} ms after", flush=True)
table.row(f"an administrator deletes our table: it is there again, {mended:.1f} s later", mended < 20)
assert wait(lambda: in_set("macs", "eve"))
read_all()
enter("mended")
sender.goes_on()
judge("when our table is back", "mended", heard=True)

# Its port stays as long as the tap does.
enter("going")
vmfabric("port", "set", "eve", "security-group=")
refused = subprocess.run(["vmfabric", "port", "delete", "eve"], capture_output=True).returncode == 4
table.row("the port of a tap that is there is not deleted", refused)
enter("kept")
sender.goes_on()
judge("… and stays filtered", "kept", heard=True)
sender.stop()
run("ip", "link", "delete", "eve")
eve.close()

# Hot-plug: nobody tells of the tap.
enter("hot-plug prepared")
hot = Guest("hot", "v10", BRIDGE, "10.0.10.68", number=0x68, prepared=False)
hot.watch = watch
sender = Sender(hot)
enter("hot-plug")
began = time.monotonic()
hot.plug()
sender.goes_on(600)
if existing:
    measure("hot-plug on a bridge that is not ours, unlawful frames and lawful ones", "hot-plug", began)
else:
    judge("hot-plug", "hot-plug", heard=True)
enter("hot-plug without the daemon")
stop_daemon(9)
sender.stop()
run("ip", "link", "delete", "hot")
hot.close()
enter("another's tap of the same name")
again = Guest("hot", "v10", BRIDGE, "10.0.10.69", None, number=0x69, prepared=False)
again.watch = watch
sender = Sender(again)
began = time.monotonic()
again.plug()
sender.goes_on(600)
if existing:
    measure("another's tap of the same name, without a daemon", phases.phase, began)
else:
    judge("another's tap of the same name, plugged in without a daemon", phases.phase, silent=True)
enter("daemon again")
start_daemon()
sender.goes_on(300)
if existing:
    measure("… and when the daemon is back: it is nobody's, and in the VLAN that the bridge's owner gives to such", phases.phase, began)
else:
    judge("… and when the daemon is back: it is nobody's", phases.phase, silent=True)
sender.stop()
run("ip", "link", "delete", "hot")
again.close()

# The same on a local network, whose bridge knows no VLANs.
if not existing:
    vmfabric("network", "create", "home")
    vmfabric("subnet", "create", "home", "10.0.30.0/24", "--forward", "none")
    bridge = next(n["bridge"] for n in json.loads(vmfabric("network", "list", "--json")) if n["name"] == "home")
    witness = Guest("h1", "home", bridge, "10.0.30.11", number=0x31).start()
    witness.watch = watch
    local = Guest("local", "home", bridge, "10.0.30.66", number=0x66).start()
    stop_daemon(9)
    run("ip", "link", "delete", "local")
    local.close()
    enter("local")
    local = Guest("local", "home", bridge, "10.0.30.67", None, number=0x67, prepared=False)
    sender = Sender(local)
    local.plug()
    sender.goes_on()
    judge("another's tap of the same name on a local network, plugged in without a daemon", phases.phase, silent=True)
    enter("local daemon")
    start_daemon()
    sender.goes_on()
    judge("… and when the daemon is back", phases.phase, silent=True)
    sender.stop()
    run("ip", "link", "delete", "local")
    local.close()

# The measure of it all: the same frames from a port without port security are seen.
enter("control")
control = Guest("control", "v10", BRIDGE, "10.0.10.70", ["--port-security", "off"], number=0x70)
control.watch = watch
sender = Sender(control)
control.start()
sender.goes_on(200)
seen_by = lambda: {v for v, _, _ in list(unlawful.get("control", []))}
wait(lambda: seen_by() >= {"w101", "w102", "wire"})
table.row(f"control: the same frames from a port without port security are seen ({len(unlawful.get('control', []))} times)",
          seen_by() >= {"w101", "w102", "wire"})
sender.stop()
ended.set()
table.finish()
