"""Senders that never stop, watched phase by phase: what they must not send bears UNLAWFUL, what they may LAWFUL."""

from stage import *

phase, unlawful, lawful = "before", {}, {}
GATEWAY = "10.0.10.1"


def watch(vantage, frame):
    kind = unlawful if b"UNLAWFUL" in frame else lawful if b"LAWFUL" in frame else None
    if kind is not None:
        kind.setdefault(phase, []).append((vantage.name, frame, time.monotonic()))


ended = threading.Event()


passes = 0


def keep_reading():
    global passes
    while not ended.is_set():
        pump(0.05)
        passes += 1
        for vantage in list(Vantage.all):
            del vantage.frames[:]


def wait(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def read_all():
    """Returns when all that was seen until now has been read."""
    goal = passes + 2
    assert wait(lambda: passes >= goal)


def unlawful_of(guest, other):
    """What a guest must not send, in turn; each with a mark that is seen wherever it comes out."""
    E, address, local = guest.mac, guest.address, guest.local
    stranger = "52:54:00:de:ad:01"
    datagram = lambda s, to, sport=5000, dport=6000: ipv4(s, to, UDP, udp(s, to, sport, dport, b"UNLAWFUL"))
    ra = icmp6(local, "ff02::1", 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0) + b"\xfe\1UNLAWFUL"[:8] + b"UNLAWFUL")
    return [
        ether(BROADCAST, stranger, IPV4, datagram(address, "255.255.255.255")),
        ether(other.mac, stranger, IPV4, datagram(address, other.address)),
        ether(BROADCAST, E, IPV4, datagram(other.address, "255.255.255.255")),
        ether(other.mac, E, IPV4, datagram("8.8.8.8", other.address)),
        ether(BROADCAST, E, ARP, arp(2, E, GATEWAY, GATEWAY) + b"UNLAWFUL"),
        ether("33:33:00:00:00:01", E, IPV6, ipv6(local, "ff02::1", ICMP6, ra)),
        ether("33:33:00:00:00:01", E, IPV6, ipv6(local, "ff02::1", HOP, options6(ICMP6) + ra)),
        ether("33:33:00:00:00:01", E, IPV6, ipv6("fd00::1", "ff02::1", UDP, udp("fd00::1", "ff02::1", 1, 2, b"UNLAWFUL"))),
        ether(BROADCAST, E, IPV4, datagram(address, "255.255.255.255", 67, 68)),
        ether(BROADCAST, E, IPV4, datagram(address, "255.255.255.255"), (10,)),
        ether(BROADCAST, E, IPV4, datagram(address, "255.255.255.255"), (20,)),
        ether(BROADCAST, E, IPV4, datagram(address, "255.255.255.255"), (1,)),
        ether(BROADCAST, E, IPV4, datagram(address, "255.255.255.255"), (10, 20)),
        mac("01:80:c2:00:00:00") + mac(E) + b"\0\x26\x42\x42\3UNLAWFUL".ljust(50, b"\0"),
        ether(BROADCAST, E, 0x88B5, b"UNLAWFUL"),
        ether(BROADCAST, E, IPV4, ipv4(address, "255.255.255.255", UDP, b"UNLAWFUL" * 2, fragment=8)),
    ]


def lawful_of(guest):
    return ether(BROADCAST, guest.mac, ARP, arp(1, guest.mac, guest.address, "10.0.10.254") + b"LAWFUL")


def enter(name):
    """From now on. What has come so far, and was not read yet, is of the phase before."""
    global phase
    read_all()
    phase = name
    return name


def judge(text, name, silent=False, heard=False):
    """What was seen in that phase. `silent`: it may send nothing at all there; `heard`: its lawful frames must be seen."""
    bad = unlawful.get(name, []) + (lawful.get(name, []) if silent else [])
    table.row(f"not one frame: {text}", not bad, f"{len(bad)}: " + "; ".join(f"{v} {Packet(f)}" for v, f, _ in bad[:3]))
    if heard and not lawful.get(name):
        table.row("  … but its lawful ones, all the while", False, "none seen")


in_set = lambda name, link: f'"{link}"' in run("nft", "list", "set", "bridge", "vmfabric", name)
daemon = lambda: int(open(f"{LOGS}/vmfabricd.pid").read())


def start_daemon():
    log = open(f"{LOGS}/vmfabricd.log", "a")
    process = subprocess.Popen(["/usr/sbin/vmfabricd"], stdout=log, stderr=log)
    with open(f"{LOGS}/vmfabricd.pid", "w") as file:
        file.write(str(process.pid))

    def answers():  # a call that the bus took while there was no daemon may wait for long
        asked = subprocess.run(["timeout", "5", "vmfabric", "status"], capture_output=True)
        return asked.returncode in (0, 7)

    assert wait(answers)


def stop_daemon(signal):
    pid = daemon()
    os.kill(pid, signal)

    def gone():
        try:  # a child of the script's, or of ours
            return open(f"/proc/{pid}/stat").read().split()[2] == "Z"
        except OSError:
            return True

    assert wait(gone)
