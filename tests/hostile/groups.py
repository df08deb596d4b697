"""Security groups: what they allow and refuse between guests, with the host, between networks and with the internet; on
access and trunk ports; what becomes of connections when a rule goes."""

from flow import *

BRIDGE, GATEWAY, GATEWAY20 = "vmf-lan", "10.0.10.1", "10.0.20.1"
group = lambda name, *rules: vmfabric("security-group", "create", name, *[a for r in rules for a in ("--rule", r)])
allow = lambda name, rule: vmfabric("security-group", "rule", "add", name, *rule.split())
revoke = lambda name, rule: vmfabric("security-group", "rule", "remove", name, *rule.split())

for vid, forward in ((10, "nat"), (20, "routed")):
    vmfabric("network", "create", f"v{vid}", "--physical", "lan", "--vlan", str(vid))
    vmfabric("subnet", "create", f"v{vid}", f"10.0.{vid}.0/24", "--dhcp", "--forward", forward)
for name in ("red", "blue"):
    vmfabric("network", "create", name)
    vmfabric("subnet", "create", name, "10.9.0.0/24", "--no-dhcp", "--forward", "none")
vmfabric("address-group", "create", "offices", "10.0.10.66", "10.0.99.0/24")
group("clients", "egress any")
group("web", "egress any", "ingress tcp 80", "ingress tcp 8000-8010 from 10.0.10.0/24", "ingress udp 53")
group("db", "egress any", "ingress tcp 5432 from group clients", "ingress tcp 25 from address-group offices", "ingress icmp from host")
group("inward", "ingress tcp 80")
group("red", "egress any", "ingress tcp 80")
group("blue", "egress any", "ingress tcp 80")
group("choosy", "egress tcp 7000 to 203.0.113.2", "egress tcp 8000", "egress udp 53 to host", "egress icmp to host")
vmfabric("security-group", "create", "plain", "--stateless", "--rule", "egress any", "--rule", "ingress tcp 80", "--rule", "ingress udp 53")


def guest(name, network, address, number, *port, bridge=BRIDGE):
    return Guest(name, network, bridge, address, port, "", number).start()


in_group = lambda *names: [a for n in names for a in ("--security-group", n)]
ann = guest("ann", "v10", "10.0.10.11", 0x11, *in_group("clients"))
eve = guest("eve", "v10", "10.0.10.66", 0x66)
web = guest("web", "v10", "10.0.10.80", 0x80, *in_group("web"))
db = guest("db", "v10", "10.0.10.54", 0x54, *in_group("web", "db"))
mute = guest("mute", "v10", "10.0.10.90", 0x90, "--no-security-group")
lone = guest("lone", "v10", "10.0.10.91", 0x91, *in_group("choosy"))
bare = guest("bare", "v10", "10.0.10.92", 0x92, *in_group("plain"))
tim = guest("tim", "v10", "10.0.10.13", 0x13, "--trunk", "20", *in_group("web"))
cat = guest("cat", "v20", "10.0.20.21", 0x21)
quiet = guest("quiet", "v20", "10.0.20.81", 0x81, *in_group("inward"))
shop = guest("shop", "v20", "10.0.20.80", 0x80, *in_group("db"))
bridges = {n["name"]: n["bridge"] for n in json.loads(vmfabric("network", "list", "--json"))}
red = [guest(f"red{n}", "red", f"10.9.0.{n}", n, *in_group("red"), bridge=bridges["red"]) for n in (11, 12)]
blue = [guest(f"blue{n}", "blue", f"10.9.0.{n}", n, *in_group("blue"), bridge=bridges["blue"]) for n in (11, 12)]
wire = Sniffer("wire", "wire", "outside", all=True)
gateway = Sniffer("gateway", f"{BRIDGE}.10")
mac_of = lambda nic: open(f"/sys/class/net/{nic}/address").read().strip()
gw, gw20 = mac_of(f"{BRIDGE}.10"), mac_of(f"{BRIDGE}.20")
for g in Guest.by_name.values():
    g.heard_by = {"wire", "gateway", "ann"} if g.network == "v10" else {"wire"}
    if g.network in ("red", "blue"):
        g.heard_by = {h.name for h in Guest.by_name.values() if h.network == g.network}
barrier(*Guest.by_name.values())
yes = lambda text, good: table.row(f"allowed: {text}", good)
no = lambda text, arrived: table.row(f"refused: {text}", not arrived)

print("--- Rules between guests on a bridge")
for version in (4, 6):
    v = f"IPv{version}"
    yes(f"{v}: a TCP connection to a port that a rule opens, both ways", Flow(eve, web, 80, version).opens())
    no(f"{v}: to another port", Flow(eve, web, 81, version).send(0, SYN, seconds=0.4))
    no(f"{v}: an answer without a question", Flow(eve, web, 80, version).send(0, SYN | ACK, seconds=0.4))
    no(f"{v}: the middle of a connection that never was", Flow(eve, web, 80, version).send(0, ACK, b"x", 0.4))
    no(f"{v}: a reset, a FIN, nothing at all", any(Flow(eve, web, 80, version).send(0, f, seconds=0.3) for f in (RST, FIN, 0, RST | ACK, FIN | SYN)))
    yes(f"{v}: what the guest opens itself, both ways", Flow(web, eve, 1234, version).opens())
yes("a range from a prefix", Flow(eve, web, 8000).opens() and Flow(eve, web, 8010).opens())
no("beside the range", Flow(eve, web, 8011).send(0, SYN, seconds=0.4) or Flow(eve, web, 7999).send(0, SYN, seconds=0.4))
yes("a remote group's member", Flow(ann, db, 5432).opens())
no("who is not in the remote group", Flow(eve, db, 5432).send(0, SYN, seconds=0.4))
yes("an address group's member", Flow(eve, db, 25).opens())
no("who is not in the address group", Flow(ann, db, 25).send(0, SYN, seconds=0.4))
yes("several groups: what any of them allows", Flow(eve, db, 80).opens())
ping = lambda source, to: ether(to.mac, source.mac, IPV4, ipv4(source.address, to.address, ICMP, icmp(8, 0, b"\1\1\0\1", mark())))


def arrives(sender, receiver, frame, seconds=0.4):
    receiver.frames.clear()
    sender.send(frame)
    return until(lambda: receiver.saw(same(frame)), seconds)


def host_pings(guest, times=2):
    """This host pings it, and has its answer."""
    process = subprocess.Popen(["ping", "-q", "-c", "1", "-W", str(times), guest.address], stdout=subprocess.DEVNULL)
    until(lambda: process.poll() is not None, times + 5)
    return process.returncode == 0


no("a ping by a guest, of who lets the host ping", arrives(eve, db, ping(eve, db)))
yes("a ping by the host", host_pings(db))
no("a ping by the host of who does not", host_pings(web, 1))
no("a protocol that no rule names", arrives(eve, web, ether(web.mac, eve.mac, IPV4, ipv4(eve.address, web.address, 47, b"\0" * 8))))
no("TCP to a port that hides behind IPv6 options", any(arrives(eve, web, ether(web.mac, eve.mac, IPV6, ipv6(
    eve.local, web.local, kind, options6(TCP) + tcp(eve.local, web.local, 4000 + kind, 81, SYN)))) for kind in (HOP, DESTINATION)))
yes("address configuration of who is in no group: ARP", arrives(mute, ann, mute.announce(), 2))
no("anything else that it sends", arrives(mute, ann, mute.udp(ann.address, b"mute")) or arrives(mute, eve, ping(mute, eve)))
no("anything else that it is sent", arrives(eve, mute, eve.udp(mute.address, b"to mute")) or host_pings(mute, 1))
clear()
mute.send(ether(BROADCAST, mute.mac, IPV4, ipv4("0.0.0.0", "255.255.255.255", UDP, udp("0.0.0.0", "255.255.255.255", 68, 67, dhcp(1, 1, mute.mac)))))
yes("DHCP of who is in no group", until(lambda: mute.saw(lambda p: p.sport == 67), 5))
no("a DHCP answer from the host's port but not of DHCP", arrives(mute, gateway, ether(gw, mute.mac, IPV4, ipv4(mute.address, GATEWAY, UDP, udp(mute.address, GATEWAY, 68, 53, b"x")))))
yes("stateless: to a port that a rule opens", arrives(eve, bare, Flow(eve, bare, 80).segment(0, SYN), 2))
no("stateless: to another", arrives(eve, bare, Flow(eve, bare, 81).segment(0, SYN)))
back = Flow(bare, eve, 1234)
yes("stateless: what it opens arrives", arrives(bare, eve, back.segment(0, SYN), 2))
no("stateless: the answer, for which there is no rule", arrives(eve, bare, back.segment(1, SYN | ACK)))

print("--- Fragments")


def pieces(dport, cut, ident, v6=False, extra=b"", to=None):
    to = to or web
    data = b"F" * (1400 if v6 else 40) + mark()
    if v6:
        cut = 1232 if cut == 16 else cut  # Linux tracks no connection of smaller ones

        whole = extra + udp(eve.local, to.local, 4000, dport, data)
        kind = DESTINATION if extra else UDP
        return data, [ether(to.mac, eve.mac, IPV6, ipv6(eve.local, to.local, FRAGMENT, fragment6(kind, a, int(m), ident) + whole[a:b]))
                      for a, b, m in ((0, cut, True), (cut, None, False))]
    whole = udp(eve.address, to.address, 4000, dport, data)
    return data, [ether(to.mac, eve.mac, IPV4, ipv4(eve.address, to.address, UDP, whole[a:b], fragment=a, more=m, ident=ident))
                  for a, b, m in ((0, cut, True), (cut, None, False))]


def any_of(frames, receiver, seconds=0.4, order=1):
    receiver.frames.clear()
    for frame in frames[::order]:
        eve.send(frame)
    token = b"FFFFFFFF"
    return until(lambda: any(token in f for f in receiver.frames), seconds)


ident = 7000
for v6 in (False, True):
    v = "IPv6" if v6 else "IPv4"
    for order in (1, -1):
        ident += 10
        turn = "" if order == 1 else ", last first"
        yes(f"{v}: a datagram in fragments to a port that is open{turn}", any_of(pieces(53, 16, ident, v6)[1], web, 2, order))
        no(f"{v}: … to one that is not{turn}", any_of(pieces(99, 16, ident + 1, v6)[1], web, order=order))
    ident += 10
    no(f"{v}: … cut within the first eight bytes' reach", any_of(pieces(99, 8, ident, v6)[1], web))
    no(f"{v}: the later fragments alone", any_of(pieces(53, 16, ident + 1, v6)[1][1:], web))
    both = [pieces(53, 16, ident + 2, v6)[1][0], *pieces(99, 16, ident + 2, v6)[1]]
    no(f"{v}: an open port's first fragment before a closed one's", any(Packet(f).dport == 99 or b"FFFF" in f and Packet(f).dport == 99
       for f in (any_of(both, web) and web.frames or [])))
no("IPv6: a first fragment that ends before the ports", any_of(pieces(99, 8, 9001, True, options6(UDP))[1], web))
tiny = tcp(eve.address, web.address, 4001, 81, SYN)
no("IPv4: a TCP header in two fragments", any(arrives(eve, web, ether(web.mac, eve.mac, IPV4, ipv4(
    eve.address, web.address, TCP, tiny[a:b], fragment=a, more=m, ident=9100))) for a, b, m in ((0, 8, True), (8, None, False))))
no("stateless: a closed port in fragments, as a whole", any_of(pieces(99, 8, 9200, to=bare)[1][:1], bare))

print("--- Routed, and NAT")
hop = (gw, gw20)
# The hosts' neighbour entries first, so that what is refused later is not only late.
yes("between two networks, by the host", Flow(ann, cat, 9000, hop=hop).opens(8))
yes("… to a port that a rule opens", Flow(eve, shop, 25, hop=hop).opens(8))
no("… to another port", Flow(eve, shop, 26, hop=hop).send(0, SYN, seconds=0.5))
yes("… a remote group's member from the other network", Flow(ann, shop, 5432, hop=hop).opens(5) )
no("… who is not in it", Flow(eve, shop, 5432, hop=hop).send(0, SYN, seconds=0.5))
no("… the middle of a connection that never was", Flow(eve, shop, 25, hop=hop).send(0, ACK, b"x", 0.5))
no("from the routed network to the NAT one", Flow(cat, ann, 9000, hop=(gw20, gw)).send(0, SYN, seconds=0.5))
with Namespace("internet"):
    listening = socket.create_server(("0.0.0.0", 8000))
    listening.setblocking(False)
    other = socket.create_server(("0.0.0.0", 8001))


class Outward:
    """A connection of a guest to a real TCP server on the internet."""

    def __init__(self, guest, port, server=None):
        global listening
        self.guest, self.port, self.server = guest, port, server or listening
        self.sport = 30000 + int.from_bytes(os.urandom(2), "big") % 20000
        self.seq, self.ack, self.peer = 100, 0, None

    def send(self, flags, data=b""):
        body = tcp(self.guest.address, "203.0.113.2", self.sport, self.port, flags, self.seq, self.ack, data)
        self.guest.send(ether(gw, self.guest.mac, IPV4, ipv4(self.guest.address, "203.0.113.2", TCP, body)))

    def opens(self, seconds=3):
        self.guest.frames.clear()
        self.send(SYN)
        mine = lambda p: p.dport == self.sport and p.flags == SYN | ACK
        if not until(lambda: self.guest.saw(mine), seconds):
            return False
        answer = next(Packet(f) for f in self.guest.frames if mine(Packet(f)))
        self.seq, self.ack = self.seq + 1, answer.seq + 1
        self.send(ACK)
        found = []

        def accepted():
            try:
                found.append(self.server.accept()[0])
            except BlockingIOError:
                pass
            return found

        if not until(accepted, 3):
            return False
        self.far = found[0]
        self.far.setblocking(False)
        self.peer = self.far.getpeername()[0]
        return self.hears() and self.says()

    def says(self, seconds=1):
        data, got = mark(), []
        self.send(PSH | ACK, data)

        def came():
            try:
                got.append(self.far.recv(4096))
            except (BlockingIOError, ConnectionResetError):  # the host resets what it knows nothing of
                pass
            return data in b"".join(got)

        arrived = until(came, seconds)
        self.seq += len(data) if arrived else 0
        return arrived

    def hears(self, seconds=1):
        data = mark()
        self.guest.frames.clear()
        try:
            self.far.send(data)
        except OSError:
            return False
        mine = lambda p: p.dport == self.sport and data in p.data
        if not until(lambda: self.guest.saw(mine), seconds):
            return False
        packet = next(Packet(f) for f in self.guest.frames if mine(Packet(f)))
        self.ack = packet.seq + len(packet.data)
        self.send(ACK)
        return True


out = Outward(lone, 8000)
yes("NAT: to a port of the internet that a rule opens, both ways", out.opens())
table.row("  … as this host", out.peer == "203.0.113.1", out.peer)
no("NAT: to another port", Outward(lone, 8001, other).opens(0.5))
clear()
lone.send(ether(gw, lone.mac, IPV4, ipv4(lone.address, GATEWAY, UDP, udp(lone.address, GATEWAY, 4053, 53, query("www.internet.test")))))
yes("DNS of the host, as a rule opens it", until(lambda: lone.saw(lambda p: p.sport == 53 and p.dport == 4053), 5))
no("the host's other services, by its groups", arrives(lone, gateway, ether(gw, lone.mac, IPV4, ipv4(lone.address, GATEWAY, TCP, tcp(lone.address, GATEWAY, 4053, 53, SYN)))))
with Namespace("internet"):
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.bind(("203.0.113.2", 67))
    far.setblocking(False)


def hears_far():
    try:
        return far.recv(100) == b"smuggled"
    except BlockingIOError:
        return False


mute.send(ether(gw, mute.mac, IPV4, ipv4(mute.address, "203.0.113.2", UDP, udp(mute.address, "203.0.113.2", 68, 67, b"smuggled"))))
no("what looks like DHCP, to the internet, of who is in no group", until(hears_far, 0.7))
run("ip", "-n", "internet", "route", "add", "10.0.0.0/16", "via", "203.0.113.1")
with Namespace("internet"):
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for to in (lone, ann):
    to.frames.clear()
    stranger.sendto(b"uninvited", (to.address, 9999))
cat.frames.clear()
stranger.sendto(b"invited", (cat.address, 9999))
yes("the internet reaches the routed network", until(lambda: cat.saw(lambda p: p.data == b"invited"), 5))
quiet.frames.clear()
far.sendto(b"smuggled", (quiet.address, 68))
no("what looks like an answer of DHCP, from the internet", until(lambda: quiet.saw(lambda p: p.data == b"smuggled"), 0.7))
no("the internet reaches a guest behind NAT by its own address", lone.saw(lambda p: b"uninvited" in p.data) or ann.saw(lambda p: b"uninvited" in p.data))

print("--- Trunk ports")
tag = ((), (20,))


def trunk_flow(client, dport, **more):
    return Flow(client, tim, dport, hop=(tim.mac, client.mac), tags=tag, **more)


yes("tagged: to a port that a rule opens, both ways", trunk_flow(cat, 80, to=tim.address).opens())
no("tagged: to another", trunk_flow(cat, 81, to=tim.address).send(0, SYN, seconds=0.4))
yes("tagged: what it opens itself", Flow(tim, cat, 700, tags=((20,), ())).opens())
yes("untagged: to a port that a rule opens, both ways", Flow(eve, tim, 80).opens())
no("untagged: to another", Flow(eve, tim, 81).send(0, SYN, seconds=0.4))
yes("tagged, IPv6: to a port that a rule opens", trunk_flow(cat, 80, version=6).opens())
no("tagged, IPv6: to another", trunk_flow(cat, 81, version=6).send(0, SYN, seconds=0.4))

print("--- Networks with the same addresses")
one, two = Flow(*red, 80, sport=33333), Flow(*blue, 80, sport=33333)
yes("a connection on one of them", one.opens())
no("its later segments on the other, of the same addresses and ports", two.send(0, PSH | ACK, b"x", 0.4))
two = Flow(*blue, 80, sport=33333)
no("its answers on the other", two.send(1, PSH | ACK, b"x", 0.4) or two.send(1, SYN | ACK, b"", 0.4))
two = Flow(*blue, 80, sport=33333)
yes("the same connection on the other, opened there", two.opens())
yes("the first goes on beside it", one.says(0) and one.says(1))
clear()
red[0].send(red[0].announce())
barrier(red[0])
no("a broadcast of one on the other", any(b.saw(same(red[0].announce())) for b in blue))

print("--- An answer to what was refused")


def arrives_routed(frame, seconds):
    def came():
        eve.send(frame())
        return until(lambda: quiet.saw(lambda p: p.dport == 9997), 0.1)

    return until(came, seconds)


for question, answer, dport in (
    (lambda: ether(gw, eve.mac, IPV4, ipv4(eve.address, quiet.address, UDP, udp(eve.address, quiet.address, 4444, 9999, b"question"))),
     lambda: ether(gw20, quiet.mac, IPV4, ipv4(quiet.address, eve.address, UDP, udp(quiet.address, eve.address, 9999, 4444, b"answer"))), "udp 9999"),
    (lambda: ether(gw, eve.mac, IPV4, ipv4(eve.address, quiet.address, TCP, tcp(eve.address, quiet.address, 4445, 9998, SYN, 7))),
     lambda: ether(gw20, quiet.mac, IPV4, ipv4(quiet.address, eve.address, TCP, tcp(quiet.address, eve.address, 9998, 4445, SYN | ACK, 9, 8))), "tcp 9998"),
):
    came = lambda port, guest: lambda: guest.saw(lambda p: p.dport == port and p.source in (eve.address, quiet.address))
    port = int(dport.split()[1])
    clear()
    eve.send(question())
    no(f"{dport}: a packet that the host routes, to who lets nobody ask", until(came(port, quiet), 0.5))
    quiet.send(answer())
    no(f"{dport}: … its answer, of who may send nothing by itself", until(came(4444 if port == 9999 else 4445, eve), 0.5))
    eve.send(question())
    no(f"{dport}: … what is sent again, now that both were heard", until(came(port, quiet), 0.5))
    quiet.send(answer())
    no(f"{dport}: … nor the answer to that", until(came(4444 if port == 9999 else 4445, eve), 0.5))
clear()
again = lambda: ether(gw, eve.mac, IPV4, ipv4(eve.address, quiet.address, UDP, udp(eve.address, quiet.address, 4446, 9997, b"again")))
no("udp 9997: refused at first", arrives_routed(again, 0.5))
allow("inward", "ingress udp 9997")
yes("udp 9997: the same packet when there is a rule for it", arrives_routed(again, 5))
quiet.send(ether(gw20, quiet.mac, IPV4, ipv4(quiet.address, eve.address, UDP, udp(quiet.address, eve.address, 9997, 4446, b"answer"))))
yes("udp 9997: and its answer", until(lambda: eve.saw(lambda p: p.dport == 4446), 3))

# A second is what is promised; a debug build on a loaded User Mode Linux gets two.
LIMIT = 2
print("--- A rule goes")


def ends(text, flow, kept, change, back=None):
    """A connection dies within a second of the change, from both sides and for good; others do not lose a segment."""
    lost, begin = 0, time.monotonic()
    done = threading.Event()
    ended = []

    def changing():
        change()
        ended.append(time.monotonic())
        done.set()

    threading.Thread(target=changing, daemon=True).start()
    last, quiet_since = None, None
    while time.monotonic() - begin < 60:
        alive = flow.says(0, 0.15) if not isinstance(flow, Outward) else flow.says(0.15)
        now = time.monotonic()
        if alive:
            last, quiet_since = now, None
        else:
            quiet_since = quiet_since or now
        for other in kept:
            lost += not (other.says(0, 5) and other.says(1, 5)) if isinstance(other, Flow) else not (other.says(5) and other.hears(5))
        if done.is_set() and quiet_since and now - max(quiet_since, ended[0]) > 1.5:
            break
    took = (last or ended[0]) - ended[0]
    table.row(f"ends:    {text} ({'before the command returned' if took <= 0 else f'{took * 1000:.0f} ms after it'})", took < LIMIT and last is not None)
    dead = not (flow.says(1, 0.4) if isinstance(flow, Flow) else flow.hears(0.6))
    dead = dead and not (flow.says(0, 0.4) if isinstance(flow, Flow) else flow.says(0.4))
    dead = dead and not (flow.says(1, 0.4) if isinstance(flow, Flow) else flow.hears(0.6))
    table.row("  … and does not come back, from either side", dead)
    table.row("  … and what stays allowed loses no segment", not lost, f"{lost} lost")
    if back:
        back()
        table.row("  … nor when the rule is there again, but by a new connection", not (flow.says(1, 0.3) if isinstance(flow, Flow) else flow.says(0.3)))


kept = Flow(eve, web, 8000)
gone = Flow(eve, web, 80)
assert kept.opens() and gone.opens()
ends("TCP on a bridge", gone, [kept], lambda: revoke("web", "ingress tcp 80"), lambda: allow("web", "ingress tcp 80"))
yes("… a new connection then", until(lambda: Flow(eve, web, 80).opens(0.5), 8))
kept, gone = Flow(eve, web, 8000, 4), Flow(eve, web, 80, 6)
assert kept.opens() and gone.opens()
ends("TCP over IPv6 on a bridge", gone, [kept], lambda: revoke("web", "ingress ipv6 tcp 80"), lambda: allow("web", "ingress ipv6 tcp 80"))
kept, gone = Flow(ann, db, 80), Flow(ann, db, 5432)
assert kept.opens() and gone.opens()
ends("… of a remote group's member that leaves it", gone, [kept], lambda: vmfabric("port", "set", "ann", "security-group="))
vmfabric("port", "set", "ann", "security-group=clients")
kept, gone = Flow(ann, cat, 9000, hop=hop), Flow(eve, shop, 25, hop=hop)
assert kept.opens(5) and gone.opens(5)
ends("TCP routed between two networks, an address group loses the address", gone, [kept], lambda: vmfabric("address-group", "remove", "offices", "10.0.10.66"))
kept, gone = Outward(eve, 8000), Outward(lone, 8000)
assert kept.opens() and gone.opens()
ends("TCP through NAT", gone, [kept], lambda: revoke("choosy", "egress tcp 8000"))
kept, gone = trunk_flow(cat, 8000, to=tim.address), trunk_flow(cat, 80, to=tim.address)
allow("web", "ingress tcp 8000")
assert until(lambda: trunk_flow(cat, 8000, to=tim.address).send(0, SYN, seconds=0.3), 8)
assert kept.opens() and gone.opens()
ends("TCP of a trunk's tagged VLAN", gone, [kept], lambda: revoke("web", "ingress tcp 80"))
one, two = Flow(*red, 80, sport=44444), Flow(*blue, 80, sport=44444)
assert one.opens() and two.opens()
ends("TCP on one of two networks with the same addresses, the same on the other goes on", one, [two], lambda: revoke("red", "ingress tcp 80"))

table.finish()
