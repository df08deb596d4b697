"""What a hostile guest may try, each shown blocked wherever it could be seen, and its lawful twin shown passing.

`brief`: without what goes by the thousand a second, which an emulated host does not reach."""

import random
import urllib.request

from stage import *

started = time.monotonic()
brief = sys.argv[1:] == ["brief"]
BRIDGE, GATEWAY, GATEWAY20 = "vmf-lan", "10.0.10.1", "10.0.20.1"
V10 = {"ann", "bob", "tim", "off", "wire", "gateway", "eve"}

for vid, forward in ((10, "nat"), (20, "routed")):
    vmfabric("network", "create", f"v{vid}", "--physical", "lan", "--vlan", str(vid))
    vmfabric("subnet", "create", f"v{vid}", f"10.0.{vid}.0/24", "--dhcp", "--forward", forward, "--lease-time", "1m")


def guest(name, network, address, number, *port, metadata=""):
    return Guest(name, network, BRIDGE, address, port, metadata, number).start()


ann = guest("ann", "v10", "10.0.10.11", 0x11)
bob = guest("bob", "v10", "10.0.10.12", 0x12)
eve = guest("eve", "v10", "10.0.10.66", 0x66)
tim = guest("tim", "v10", "10.0.10.13", 0x13, "--trunk", "20,30")
off = guest("off", "v10", "10.0.10.14", 0x14, "--port-security", "off")
cat = guest("cat", "v20", "10.0.20.21", 0x21)
wire = Sniffer("wire", "wire", "outside", all=True)
host = Sniffer("host", BRIDGE)
gateway, gateway20 = Sniffer("gateway", f"{BRIDGE}.10"), Sniffer("gateway20", f"{BRIDGE}.20")
gw = open(f"/sys/class/net/{BRIDGE}.10/address").read().strip()
wire_mac = "02:00:00:00:01:01"
for someone in (ann, bob, eve, tim, off):
    someone.heard_by = V10
cat.heard_by = {"tim", "wire", "gateway20"}
barrier(ann, bob, eve, tim, off, cat)
stranger, nobody = "52:54:00:de:ad:01", "52:54:00:de:ad:02"
E, A, B = eve.mac, ann.mac, bob.mac


def from_eve(payload, kind=IPV4, to=BROADCAST, source=E, tags=()):
    return ether(to, source, kind, payload, tags)


def datagram(source, to, data, sport=5000, dport=6000):
    return ipv4(source, to, UDP, udp(source, to, sport, dport, data))




def lease(guest):
    """A client's way to an address: DISCOVER, REQUEST."""
    for message, answer in ((1, 2), (3, 5)):
        body = dhcp(1, message, guest.mac)
        if message == 3:
            body = body[:-1] + bytes([50, 4]) + ip(guest.address) + bytes([54, 4]) + ip(GATEWAY) + b"\xff"
        guest.frames.clear()
        guest.send(ether(BROADCAST, guest.mac, IPV4, datagram("0.0.0.0", "255.255.255.255", body, 68, 67)))
        if not until(lambda: guest.saw(lambda p: p.sport == 67 and bytes([53, 1, answer]) in p.data)):
            return False
    return True


leases = lambda: [entry["mac"] for entry in json.loads(vmfabric("lease", "list", "--json"))]
leased = lease(bob) and until(lambda: bob.mac in leases())
print("--- Whose frames")
blocked("frames from the gateway's MAC address", eve, [from_eve(datagram(eve.address, ann.address, b"mac-3"), source=gw, to=A)], "mac")
blocked("frames from other MAC addresses: a stranger's, another guest's", eve, [
    from_eve(datagram(eve.address, ann.address, b"mac-1"), source=stranger, to=A),
    from_eve(datagram(eve.address, bob.address, b"mac-2"), source=A, to=B),
    from_eve(arp(1, stranger, "10.0.10.66", "10.0.10.11") + b"mac-4", ARP, source=stranger),
], "mac", off)
passes("a frame from its own to another guest", eve, eve.udp(ann.address, b"own mac"), ann)
blocked("IPv4 from addresses of others: a guest's, the gateway's, the internet's, none", eve, [
    from_eve(datagram(s, bob.address, b"ip-" + s.encode()), to=B) for s in
    (ann.address, GATEWAY, "10.0.10.99", "8.8.8.8", "127.0.0.1", "0.0.0.0", "255.255.255.255", "10.0.20.21")
] + [from_eve(datagram("10.0.10.11", "255.255.255.255", b"ip-b"))], "ip", off)
passes("IPv4 from its own", eve, eve.udp(bob.address, b"own ip"), bob)
blocked("IPv6 from addresses of others", eve, [
    from_eve(ipv6(s, bob.local, UDP, udp(s, bob.local, 1, 2, b"ip6")), IPV6, B) for s in
    (ann.local, "fe80::1", "2001:db8::66", "fd00::66", "::", "::1", "::ffff:10.0.10.66")
], "ip6", off)
passes("IPv6 from its own link-local address", eve,
       from_eve(ipv6(eve.local, bob.local, UDP, udp(eve.local, bob.local, 1, 2, b"ip6 own")), IPV6, B), bob)

print("--- ARP and neighbour discovery")
blocked("ARP that claims a guest's address; requests and answers, to all and to one", eve, [
    from_eve(arp(o, E, ann.address, bob.address) + b"arp-1", ARP, to) for o in (1, 2) for to in (BROADCAST, B)
] + [from_eve(arp(2, A, ann.address, bob.address) + b"arp-2", ARP, B),
     from_eve(arp(1, A, eve.address, bob.address) + b"arp-3", ARP)], "arp", off)
blocked("gratuitous ARP for the gateway", eve, [
    from_eve(arp(o, s, GATEWAY, GATEWAY, t) + b"grat", ARP)
    for o in (1, 2) for s in (E, gw) for t in (BROADCAST, "00:00:00:00:00:00")], "arp", off)
blocked("ARP that is not of Ethernet and IPv4, a gratuitous answer of nobody", eve, [
    from_eve(arp(1, E, eve.address, ann.address, hardware=6) + b"a1", ARP),
    from_eve(arp(1, E, eve.address, ann.address, protocol=IPV6) + b"a2", ARP),
    from_eve(arp(1, E, eve.address, ann.address, lengths=(8, 4)) + b"a3", ARP),
    from_eve(arp(1, E, eve.address, ann.address, lengths=(6, 16)) + b"a4", ARP),
    from_eve(arp(2, E, "0.0.0.0", ann.address) + b"a5", ARP),
    from_eve(b"\0\1\x08\0\6\4\0\2", ARP)], None)
passes("gratuitous ARP for its own address", eve, eve.announce(), ann, bob, gateway, wire)
passes("a probe", eve, from_eve(arp(1, E, "0.0.0.0", eve.address) + b"probe", ARP), ann, gateway, wire)


def nd(kind, source, to, target, options=b"", flags=0x60000000, chain=lambda payload: (ICMP6, payload), mac_to="33:33:00:00:00:01"):
    body = (struct.pack("!I", flags) if kind == 136 else b"\0\0\0\0") + (ip(target) if target else b"") + options
    first, payload = chain(icmp6(source, to, kind, body))
    return from_eve(ipv6(source, to, first, payload), IPV6, mac_to)


L, ALL = eve.local, "ff02::1"
hop = lambda payload: (HOP, options6(ICMP6) + payload)
dst = lambda payload: (DESTINATION, options6(ICMP6) + payload)
atomic = lambda payload: (FRAGMENT, fragment6(ICMP6, 0, 0, 77) + payload)
blocked("neighbour advertisements for others, with others' addresses, with more than they need", eve, [
    nd(136, L, ALL, ann.local, lla(2, E)), nd(136, L, ALL, "fe80::1"), nd(136, L, ALL, "2001:db8::1", lla(2, E)),
    nd(136, L, ALL, L, lla(2, A)), nd(136, L, ALL, L, lla(2, E) + lla(2, A)), nd(136, L, ALL, L, lla(2, E) + b"\x05\1" + b"\0" * 6),
    nd(136, L, ALL, L, lla(2, E), chain=hop), nd(136, L, ALL, ann.local, lla(2, E), chain=dst),
    nd(136, L, bob.local, ann.local, lla(2, E), mac_to=B), nd(136, L, ALL, L, b"\2\0" + mac(E)),
], "nd", off)
blocked("solicitations that carry others' link-layer addresses", eve, [
    nd(135, L, "ff02::1:ff00:1", "fe80::1", lla(1, A)), nd(135, L, bob.local, bob.local, lla(1, A), mac_to=B),
    nd(133, L, "ff02::2", None, lla(1, A)), nd(135, L, ALL, bob.local, lla(1, E) + lla(1, A)),
    nd(135, "::", "ff02::1:ff00:1", ann.local),
], "nd", off)
blocked("an advertisement as a fragment of its own, to one and to all", eve, [
    nd(136, L, ALL, ann.local, lla(2, E), chain=atomic), nd(136, L, bob.local, ann.local, lla(2, E), chain=atomic, mac_to=B)])
passes("an advertisement of its own", eve, nd(136, L, ALL, L, lla(2, E)), ann, bob, gateway, wire)
passes("a solicitation", eve, nd(135, L, bob.local, bob.local, lla(1, E), mac_to=B), bob)
passes("duplicate address detection", eve, nd(135, "::", "ff02::1:ff00:66", L), ann, wire)
passes("a router solicitation", eve, nd(133, L, "ff02::2", None, lla(1, E)), ann, wire)

print("--- Servers and routers")
offer = dhcp(2, 2, A, "10.0.10.200", eve.address)
blocked("a DHCP server: answers to all and to one, from its own address, from the gateway's, to another port", eve, [
    from_eve(datagram(eve.address, "255.255.255.255", offer, 67, 68)), from_eve(datagram(eve.address, ann.address, offer, 67, 68), to=A),
    from_eve(datagram(GATEWAY, "255.255.255.255", offer, 67, 68)), from_eve(datagram(eve.address, ann.address, offer, 67, 6868), to=A),
    from_eve(datagram("0.0.0.0", "255.255.255.255", offer, 67, 68)),
], "dhcp", off)
clear()
eve.send(from_eve(datagram("0.0.0.0", "255.255.255.255", dhcp(1, 1, E), 68, 67)))
table.row("passes:  DHCP of a client: our server answers it",
          until(lambda: eve.saw(lambda p: p.sport == 67 and p.source == GATEWAY)), "no answer")
advertise = b"\2\x12\x34\x56"
blocked("a DHCPv6 server", eve, [
    from_eve(ipv6(L, ann.local, UDP, udp(L, ann.local, 547, 546, advertise)), IPV6, A),
    from_eve(ipv6(L, ALL, UDP, udp(L, ALL, 547, 546, advertise)), IPV6, "33:33:00:00:00:01"),
    from_eve(ipv6(L, ann.local, DESTINATION, options6(UDP) + udp(L, ann.local, 547, 546, advertise)), IPV6, A),
    from_eve(ipv6(L, ann.local, FRAGMENT, fragment6(UDP, 0, 1, 9) + udp(L, ann.local, 547, 546, advertise)), IPV6, A),
], "dhcp")
passes("DHCPv6 of a client", eve, from_eve(ipv6(L, "ff02::1:2", UDP, udp(L, "ff02::1:2", 546, 547, b"\1\0\0\1")), IPV6, "33:33:00:01:00:02"), ann, wire)
ra_body = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + lla(1, E)


def ra(source=L, to=ALL, mac_to="33:33:00:00:00:01", chain=lambda payload: (ICMP6, payload), cut=None, rest=False):
    first, payload = chain(icmp6(source, to, 134, ra_body))
    return from_eve(ipv6(source, to, first, payload), IPV6, mac_to)


stacked = lambda payload: (HOP, options6(DESTINATION) + options6(DESTINATION, 4) + options6(ICMP6) + payload)
blocked("router advertisements: plain, to one, behind hop-by-hop and destination options, behind many of them", eve, [
    ra(), ra(to=ann.local, mac_to=A), ra(chain=hop), ra(chain=dst), ra(chain=stacked), ra(to=ann.local, mac_to=A, chain=stacked)], "ra", off)
blocked("… from others' addresses", eve, [ra(gateway_local) for gateway_local in (link_local(gw), "fe80::1", ann.local)], "ra")
blocked("… behind a routing header", eve, [
    ra(chain=lambda p: (ROUTING, routing6(ICMP6, kind) + p)) for kind in (0, 2, 3, 4)] + [
    ra(to=ann.local, mac_to=A, chain=lambda p: (ROUTING, routing6(ICMP6, 0) + p))], "options", off)


def split_ra(to, mac_to):
    """A first fragment that ends before what is above IP, and the rest (RFC 7113)."""
    whole = options6(ICMP6, 2) + icmp6(L, to, 134, ra_body)
    return [from_eve(ipv6(L, to, FRAGMENT, fragment6(DESTINATION, at, int(more), 99) + whole[a:b]), IPV6, mac_to)
            for at, more, a, b in ((0, True, 0, 8), (8, True, 8, 16), (16, False, 16, None))]


blocked("… in fragments: a whole one, and one whose first fragment has no header above IP, to all", eve,
        [ra(chain=atomic)] + split_ra(ALL, "33:33:00:00:00:01"), "fragment")
clear()
for frame in split_ra(ann.local, A) + [ra(to=ann.local, mac_to=A, chain=atomic)]:
    eve.send(frame)
barrier(eve)
first, *rest = split_ra(ann.local, A)
table.row("blocked: … its first fragment to one guest, without which the others are nothing", not seen([first]) and
          not seen([ra(to=ann.local, mac_to=A, chain=atomic)]), "seen")
redirect4 = ipv4(eve.address, bob.address, ICMP, icmp(5, 1, ip(eve.address), ipv4(bob.address, "8.8.8.8", UDP, udp(bob.address, "8.8.8.8", 1, 53))))
redirect6 = icmp6(L, bob.local, 137, b"\0" * 4 + ip(L) + ip("2001:db8::1"))
blocked("redirects, ICMP and ICMPv6", eve, [
    from_eve(redirect4, to=B), from_eve(ipv6(L, bob.local, ICMP6, redirect6), IPV6, B),
    from_eve(ipv6(L, bob.local, DESTINATION, options6(ICMP6) + redirect6), IPV6, B),
    from_eve(ipv4(eve.address, GATEWAY, ICMP, icmp(5, 1, ip(eve.address))), to=gw)], "redirect", off)
passes("an echo request", eve, from_eve(ipv4(eve.address, bob.address, ICMP, icmp(8, 0, b"\1\2\3\4")), to=B), bob)
lsrr, ssrr, rr = (bytes([kind, 7, 4]) + ip(ann.address) for kind in (131, 137, 7))
blocked("IPv4 source routes, loose and strict, and other options; IPv6 routing headers", eve, [
    from_eve(ipv4(eve.address, bob.address, UDP, udp(eve.address, bob.address, 1, 2, b"opt"), options), to=to)
    for options in (lsrr, ssrr, rr, b"\x44\x08\x05\0\0\0\0\0", b"\x94\4\0\0", b"\1\1\1\1") for to in (B, gw)
] + [from_eve(ipv6(L, bob.local, ROUTING, routing6(UDP, kind) + udp(L, bob.local, 1, 2)), IPV6, B) for kind in (0, 2, 4)], "options", off)
report = b"\x16\0\0\0" + ip("239.1.2.3")
report = report[:2] + struct.pack("!H", checksum(report)) + report[4:]
before = drops("options", "eve")
eve.send(from_eve(ipv4(eve.address, "239.1.2.3", IGMP, report, b"\x94\4\0\0", ttl=1), to="01:00:5e:01:02:03"))
barrier(eve)
table.row("passes:  IGMP with its router alert: the bridge takes the membership",
          "239.1.2.3" in run("bridge", "mdb", "show", "dev", BRIDGE) and drops("options", "eve") == before)

print("--- What is not a guest's to say")
llc = lambda body: len(body).to_bytes(2, "big") + body
raw = lambda to, body: mac(to) + mac(E) + body.ljust(48, b"\0")
bpdu, cdp = b"\x42\x42\3\0\0\0\0\0" + b"\0" * 31, b"\xaa\xaa\3\0\0\x0c\x20\0\2\xb4"
# The bridge forwards none of these but STP's, if nobody told it to; then our rule alone is between.
run("ip", "link", "set", BRIDGE, "type", "bridge", "group_fwd_mask", "0xfff8")
kinds = (0, 3, 8, 0xD, 0xE, 0xF)
blocked("STP, RSTP, LACP, 802.1X, LLDP, MVRP-like control frames", eve,
        [raw(f"01:80:c2:00:00:{n:02x}", llc(bpdu)) for n in kinds] +
        [raw("01:80:c2:00:00:0e", b"\x88\xcc\2\7\4" + mac(E))], "control", off)
run("ip", "link", "set", BRIDGE, "type", "bridge", "group_fwd_mask", "0")
blocked("… of the kinds that a bridge never forwards", eve, [raw(f"01:80:c2:00:00:{n:02x}", llc(bpdu)) for n in (1, 2, 4, 5)])
blocked("CDP and its like, PVST", eve, [raw("01:00:0c:cc:cc:cc", llc(cdp)), raw("01:00:0c:cc:cc:cd", llc(bpdu))], "control", off)
blocked("BPDUs and LLDP to other addresses, and protocols that are none of ours", eve, [
    raw(BROADCAST, llc(bpdu)), raw(B, llc(bpdu)), raw(BROADCAST, b"\x88\xcc\2\7\4"), raw(B, b"\x88\x8e\1\1\0\0")
] + [raw(to, kind.to_bytes(2, "big") + b"ethertype") for kind in (0x8137, 0x88B5, 0x8863, 0x8847, 0x86DC, 0x9100, 0x9000, 0x22F0) for to in (B, BROADCAST)],
        "ethertype", off)
passes("mDNS", eve, from_eve(datagram(eve.address, "224.0.0.251", b"mdns", 5353, 5353), to="01:00:5e:00:00:fb"), ann, wire)

print("--- VLANs")
tagged = [(10,), (20,), (30,), (1,), (0,), (4095,), (10, 20), (20, 20), ((QINQ, 10),), ((QINQ, 20), 20), ((QINQ, 10), 20), (20, (QINQ, 20))]
blocked("tagged frames from an access port: its own VLAN, others, none, two tags, 802.1ad", eve,
        [from_eve(datagram(eve.address, bob.address, b"tag-%d" % n), tags=tags, to=to) for n, tags in enumerate(tagged)
         for to in (BROADCAST, B, cat.mac)], "vlan")
T = tim.mac
blocked("two tags from a trunk port, and 802.1ad", tim,
        [ether(to, T, ARP, arp(1, T, tim.address, cat.address) + b"double-%d" % n, tags=tags) for n, tags in enumerate(
            [(20, 10), (20, 20), (20, 30), (20, (QINQ, 10)), (30, 20), ((QINQ, 20), 10)]) for to in (BROADCAST, cat.mac, B)], "vlan")
blocked("a trunk's frames in VLANs that are not its own", tim,
        [ether(to, T, ARP, arp(1, T, tim.address, bob.address) + b"hop-%d" % vid, tags=(vid,)) for vid in (1, 40, 99, 4094) for to in (BROADCAST, B)])
blocked("spoofed frames of a trunk's tagged VLAN, as of its native one", tim, [
    ether(BROADCAST, stranger, ARP, arp(1, stranger, tim.address, "10.0.20.1"), (20,)),
    ether(cat.mac, cat.mac, IPV4, datagram(tim.address, "10.0.20.21", b"x"), (20,))], "mac")
for text, reason, frames in (
    ("ARP for VLAN 20's gateway", "arp", [ether(BROADCAST, T, ARP, arp(2, T, GATEWAY20, GATEWAY20), (20,))]),
    ("IPv4 of others", "ip", [ether(cat.mac, T, IPV4, datagram("10.0.20.1", cat.address, b"t"), (20,))]),
    ("a router advertisement", "ra", [ether("33:33:00:00:00:01", T, IPV6, ipv6(tim.local, ALL, ICMP6, icmp6(tim.local, ALL, 134, ra_body)), (20,)),
                                      ether("33:33:00:00:00:01", T, IPV6, ipv6(tim.local, ALL, HOP, options6(ICMP6) + icmp6(tim.local, ALL, 134, ra_body)), (20,))]),
    ("a DHCP server", "dhcp", [ether(cat.mac, T, IPV4, datagram(tim.address, cat.address, offer, 67, 68), (20,))]),
    ("source routes", "options", [ether(cat.mac, T, IPV4, ipv4(tim.address, cat.address, UDP, b"\0" * 8, lsrr), (20,))]),
    ("redirects", "redirect", [ether(cat.mac, T, IPV4, ipv4(tim.address, cat.address, ICMP, icmp(5)), (20,))]),
    ("an advertisement for another", "nd", [ether(cat.mac, T, IPV6, ipv6(tim.local, cat.local, ICMP6, icmp6(tim.local, cat.local, 136, b"\x60\0\0\0" + ip("fe80::1"))), (20,))]),
):
    blocked(f"tagged, from a trunk port: {text}", tim, frames, reason)
passes("a trunk's frame in its own tagged VLAN", tim, tim.udp(cat.address, b"tagged", tags=(20,)), cat)
passes("… and in its native one", tim, tim.udp(bob.address, b"native"), bob)
passes("… and broadcast there", tim, ether(BROADCAST, T, ARP, arp(1, T, tim.address, cat.address) + b"t20", (20,)), cat, gateway20, wire)
clear()
eve.send(eve.udp(cat.address, b"across", via=cat.mac))
barrier(eve)
table.row("blocked: a frame for another VLAN's MAC address", not cat.saw(lambda p: b"across" in p.frame), "seen")

print("--- Floods")


def fdb(link):
    return [entry["mac"] for entry in json.loads(run("bridge", "-j", "fdb", "show", "dev", link)) if "permanent" not in str(entry.get("state"))]


clear()
rng = random.Random(4)
fakes = 300 if brief else 3000
for n in range(fakes):
    fake = "52:%02x:%02x:%02x:%02x:%02x" % tuple(rng.randbytes(5))
    eve.send(ether(B if n % 2 else BROADCAST, fake, IPV4, datagram(eve.address, bob.address, b"flood")))
barrier(eve)
table.row(f"blocked: {fakes} frames from as many MAC addresses: nobody sees one", not any(v.saw(lambda p: b"flood" in p.frame) for v in Vantage.all))
table.row("  … and the bridge learns none of them", set(fdb("eve")) <= {E}, str(len(fdb("eve"))))
clear()
ann.send(ann.udp(bob.address, b"private"))
ann.send(ann.udp("10.0.10.250", b"unknown", via=nobody))
barrier(ann)
table.row("blocked: others' frames are not seen by it, known destination or not", bob.saw(lambda p: b"private" in p.frame)
          and wire.saw(lambda p: b"unknown" in p.frame) and not eve.saw(lambda p: b"private" in p.frame or b"unknown" in p.frame))


def storms():
    for v in (ann, bob, tim, off):
        run("ip", "link", "set", v.name, "txqueuelen", "30000")
    clear()
    before, sent, begin = drops("storm", "eve"), 0, time.monotonic()
    storm = from_eve(arp(1, E, eve.address, "10.0.10.3") + b"storm", ARP)
    while sent < 2 * (2000 + 1000 * (time.monotonic() - begin)) and sent < 100000:
        for _ in range(1000):
            eve.send(storm)
        sent += 1000
    took = time.monotonic() - begin
    until(lambda: False, 0.2)
    heard, dropped = sum(b"storm" in f for f in ann.frames), drops("storm", "eve") - before
    table.row(f"limited: a broadcast storm: {sent} sent in {took:.1f} s, {heard} heard, {dropped} dropped and counted",
              1000 <= heard <= 2000 + 1000 * (took + 0.5) and heard + dropped == sent and dropped > 0)
    passes("another guest's broadcast meanwhile", ann, ann.announce(), bob, wire, gateway)
    passes("its own unicast meanwhile", bob, bob.udp(ann.address, b"calm"), ann)
    until(lambda: False, 3)  # the limit forgets
    before = drops("storm", "eve")
    for n in range(6000):
        eve.send(ether(gw, E, IPV4, datagram(eve.address, GATEWAY, b"flood", 68, 67)))
    table.row("limited: questions to the gateway's DHCP server", until(lambda: drops("storm", "eve") - before > 1000),
              f"{drops('storm', 'eve') - before} of 6000 dropped")
    until(lambda: False, 3)


if not brief:
    storms()

print("--- The host's own services")
listeners = [socket.create_server(("0.0.0.0", port)) for port in (22, 3128, 8080)]
sockets = {}
for port in (123, 1234, 5353):
    sockets[port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sockets[port].bind(("0.0.0.0", port))
    sockets[port].setblocking(False)


def pings_gateway(guest):
    """So that the host is done with what came before; and the lawful twin of all."""
    token = os.urandom(8)
    guest.send(ether(gw, guest.mac, IPV4, ipv4(guest.address, GATEWAY, ICMP, icmp(8, 0, b"\5\5\5\5", token))))
    return until(lambda: guest.saw(lambda p: p.type == 0 and token in p.frame))


def connects(port, to=GATEWAY):
    clear()
    sport = 10000 + port % 10000
    eve.send(ether(gw, E, IPV4, ipv4(eve.address, to, TCP, tcp(eve.address, to, sport, port, SYN))))
    assert pings_gateway(eve)
    return eve.saw(lambda p: p.protocol == TCP and p.dport == sport)


def gets(port, to=GATEWAY, ether_to=None):
    eve.send(ether(ether_to or gw, E, IPV4, datagram(eve.address, to, b"service", dport=port)))
    assert pings_gateway(eve)
    try:
        return sockets[port].recv(100) == b"service"
    except BlockingIOError:
        return False


for text, to in (("the gateway", GATEWAY), ("the gateway of another network", GATEWAY20), ("the uplink's address", "203.0.113.1")):
    table.row(f"blocked: TCP to 22 and 8080 of {text}: not even a reset", not connects(22, to) and not connects(8080, to) and not connects(9, to))
    table.row(f"blocked: UDP to 1234 and 5353 of {text}", not gets(1234, to) and not gets(5353, to))
table.row("blocked: UDP to all, and to all of the subnet", not any(gets(1234, to, BROADCAST) for to in ("255.255.255.255", "10.0.10.255")))
table.row("blocked: multicast to the host", not gets(5353, "224.0.0.251", "01:00:5e:00:00:fb"))
table.row("passes:  what host_services names: tcp/3128, udp/123", connects(3128) and gets(123))
table.row("passes:  DNS over TCP", connects(53))
clear()
eve.send(ether(gw, E, IPV4, ipv4(eve.address, GATEWAY, UDP, udp(eve.address, GATEWAY, 4053, 53, query("www.internet.test")))))
table.row("passes:  DNS over UDP", until(lambda: eve.saw(lambda p: p.sport == 53 and b"\xcb\0\x71\2" in p.frame)))
table.row("passes:  ping of the gateway", pings_gateway(eve))
clear()
local_gw = link_local(gw)
eve.send(ether(gw, E, IPV6, ipv6(L, local_gw, TCP, tcp(L, local_gw, 2222, 22, SYN))))
eve.send(ether(gw, E, IPV6, ipv6(L, ALL, TCP, tcp(L, ALL, 2222, 22, SYN))))
pings_gateway(eve)
table.row("… each counted as the host's", host_drops().get(("host", eve.address), 0) >= 3 * 5 + 3, str(host_drops()))
table.row("blocked: TCP over IPv6 to the host", not eve.saw(lambda p: p.protocol == TCP))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect((eve.address, 7777))
client.setblocking(False)
client.send(b"question")
until(lambda: eve.saw(lambda p: p.data == b"question"))
sport = client.getsockname()[1]
eve.send(ether(gw, E, IPV4, ipv4(eve.address, GATEWAY, UDP, udp(eve.address, GATEWAY, 7777, sport, b"answer"))))
assert pings_gateway(eve)
try:
    answer = client.recv(100)
except BlockingIOError:
    answer = b""
table.row("passes:  an answer to what the host asked", answer == b"answer")

clear()
cat.send(cat.udp(ann.address, b"inward", via=open(f"/sys/class/net/{BRIDGE}.20/address").read().strip()))
table.row("blocked: a guest of another network into one with nat, and counted",
          until(lambda: host_drops().get(("forward", cat.address)) == 1) and not ann.saw(lambda p: p.data == b"inward"), str(host_drops()))

print("--- Isolation, address pairs, addresses of others")


def hairpin(data):
    """Whether what eve has the gateway forward to ann on the same link arrives."""
    clear()
    assert pings_gateway(ann)
    eve.send(eve.udp(ann.address, data, via=gw))
    barrier(eve)
    return ann.saw(lambda p: p.data == data)


table.row("passes:  a guest to another through their gateway", until(lambda: hairpin(b"hairpin")))
for name in ("eve", "ann"):
    vmfabric("port", "set", name, "isolated=yes")
in_set = lambda name, link: f'"{link}"' in run("nft", "list", "set", "bridge", "vmfabric", name)
assert until(lambda: in_set("isolated", "eve") and in_set("isolated", "ann"))
eve.heard_by, ann.heard_by = V10 - {"ann"}, V10 - {"eve"}
blocked("an isolated guest to another", eve, [eve.udp(ann.address, b"iso"), from_eve(arp(1, E, eve.address, ann.address) + b"iso", ARP, A)], "isolation")
before = host_drops().get(("isolation", eve.address), 0)
table.row("blocked: … nor through their gateway", not hairpin(b"iso-hairpin"))
table.row("  … which counts it", host_drops().get(("isolation", eve.address), 0) == before + 1, str(host_drops()))
passes("… to the gateway", eve, eve.udp(GATEWAY, b"iso-gw", via=gw), gateway, host)
passes("… to the wire", eve, eve.udp("10.0.10.250", b"iso-wire", via=nobody), wire, off)
for name in ("eve", "ann"):
    vmfabric("port", "set", name, "isolated=")
assert until(lambda: not in_set("isolated", "eve") and not in_set("isolated", "ann"))
table.row("passes:  … and again when they are not", until(lambda: hairpin(b"un-hairpin")))
eve.heard_by = ann.heard_by = V10
virtual = "00:00:5e:00:01:07"
vmfabric("port", "set", "eve", "--allowed-address", "10.0.10.128/25", "--allowed-address", "10.0.10.40",
         "--allowed-address", "fd00:66::/64", "--allowed-address", f"10.0.10.50,{virtual}")
assert until(lambda: "10.0.10.40" in run("nft", "list", "set", "bridge", "vmfabric", "addresses4"))
from_pair = lambda s: from_eve(datagram(s, bob.address, b"pair"), to=B)
for s in ("10.0.10.40", "10.0.10.128", "10.0.10.200", "10.0.10.255", eve.address):
    passes(f"from an allowed address, {s}", eve, from_pair(s), bob)
passes("from an allowed address with its own MAC address", eve, from_eve(datagram("10.0.10.50", bob.address, b"vrrp"), to=B, source=virtual), bob)
passes("ARP of it", eve, from_eve(arp(2, virtual, "10.0.10.50", "10.0.10.50"), ARP, source=virtual), ann, wire)
blocked("that address with the port's MAC address, and the port's address with that one", eve, [
    from_pair("10.0.10.50"), from_eve(datagram(eve.address, bob.address, b"vrrp"), to=B, source=virtual)], "ip")
passes("ARP of an allowed prefix", eve, from_eve(arp(2, E, "10.0.10.201", "10.0.10.201"), ARP), ann, wire)
passes("IPv6 of an allowed prefix", eve, from_eve(ipv6("fd00:66::7", bob.local, UDP, udp("fd00:66::7", bob.local, 1, 2, b"p6")), IPV6, B), bob)
passes("an advertisement for it", eve, nd(136, "fd00:66::7", ALL, "fd00:66::7", lla(2, E)), bob, wire)
blocked("from what is just beside allowed addresses", eve, [from_pair(s) for s in ("10.0.10.127", "10.0.11.0", "10.0.10.39", "10.0.10.49", ann.address)], "ip")
blocked("… and IPv6", eve, [from_eve(ipv6(s, bob.local, UDP, udp(s, bob.local, 1, 2)), IPV6, B) for s in ("fd00:66:0:1::1", "fd00:65::1")], "ip6")
vmfabric("port", "set", "eve", "allowed-address=")
assert until(lambda: "10.0.10.40" not in run("nft", "list", "set", "bridge", "vmfabric", "addresses4"))
blocked("from what was an allowed address until now", eve, [from_pair(s) for s in ("10.0.10.40", "10.0.10.200")], "ip")
vmfabric("port", "set", "eve", "address=10.0.10.67")
assert until(lambda: "10.0.10.67" in run("nft", "list", "set", "bridge", "vmfabric", "addresses4"))
eve.address, eve.own = "10.0.10.67", {"10.0.10.67"}
blocked("from the address that it had until now; IPv4", eve, [from_pair("10.0.10.66")], "ip")
blocked("… ARP", eve, [from_eve(arp(2, E, "10.0.10.66", "10.0.10.66"), ARP)], "arp")
passes("from its new one", eve, from_pair("10.0.10.67"), bob)

table.row("a guest has a lease, which it does not renew", leased)
table.row("  … and which expires", until(lambda: not [x for x in json.loads(vmfabric("lease", "list", "--json")) if x["mac"] == bob.mac and not x.get("expired")], 150),
          vmfabric("lease", "list", "--json"))
blocked("its address then, by another: IPv4", eve, [from_eve(datagram(bob.address, ann.address, b"stolen"), to=A)], "ip")
blocked("… ARP", eve, [from_eve(arp(o, E, bob.address, bob.address), ARP) for o in (1, 2)] + [from_eve(arp(2, E, bob.address, ann.address), ARP, A)], "arp")
clear()
request = dhcp(1, 3, E)[:-1] + bytes([50, 4]) + ip(bob.address) + bytes([54, 4]) + ip(GATEWAY) + b"\xff"
eve.send(from_eve(datagram("0.0.0.0", "255.255.255.255", request, 68, 67)))
table.row("blocked: … asked of the DHCP server: it says no", until(lambda: eve.saw(lambda p: p.sport == 67)) and
          not eve.saw(lambda p: p.sport == 67 and bytes([53, 1, 5]) in p.data))
run("ip", "link", "delete", "bob")
vmfabric("port", "delete", "bob")
Vantage.all.remove(bob)
V10.discard("bob")
blocked("… and when the guest and its port are gone", eve, [
    from_eve(datagram(bob.address, ann.address, b"stolen"), to=A), from_eve(datagram(bob.address, ann.address, b"stolen"), to=A, source=bob.mac)])
vmfabric("port", "set", "eve", f"address={bob.address}")
assert until(lambda: bob.address in run("nft", "list", "set", "bridge", "vmfabric", "addresses4"))
eve.address, eve.own = bob.address, {bob.address}
passes("… until it is its own", eve, from_eve(datagram(bob.address, ann.address, b"mine"), to=A), ann)

print("--- What is told of it")


def scrape(accept="", path="/metrics"):
    request = urllib.request.Request(f"http://127.0.0.1:9177{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def metric(text, name, **labels):
    """The value of the sample with these labels, among others perhaps; their sum where there are more."""
    lines = [line for line in text.splitlines() if line.startswith((name + "{", name + " "))]
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(want in line for want in wanted))


def told(name):
    port = json.loads(vmfabric("port", "show", name, "--json"))
    return port["statistics"]


guests = [guest.name for guest in Guest.by_name.values() if guest.name != "bob"]


def counted(name):
    guest, sums = Guest.by_name[name], {reason: count for (reason, link), count in all_drops().items() if link == name}
    for (reason, source), count in host_drops().items():
        if source in (guest.address, guest.local):
            sums[reason] = sums.get(reason, 0) + count
    return sums


at_filters = lambda drops: {reason: count for reason, count in drops.items() if not reason.startswith("rate_")}
for name in guests:
    table.row(f"vmfabric tells what was dropped of {name}", until(lambda: at_filters(told(name)["drops"]) == counted(name)),
              f"{told(name)['drops']} {counted(name)}")
reasons = set(counted("eve")) | {reason for reason, _ in host_drops()}
lacking = {"vlan", "control", "mac", "storm", "ethertype", "arp", "ip", "ip6", "nd", "dhcp", "ra", "redirect", "options", "fragment", "isolation", "foreign", "host", "forward"} - reasons - ({"storm"} if brief else set())
table.row("each attack had its reason", not lacking, f"never counted: {lacking}")
explained = json.loads(vmfabric("explain", "eve", "--json"))
table.row("explain tells them too", explained["drops"]["mac"] > fakes, str(explained["drops"]))
until(lambda: False, 0.6)  # what is told may be half a second old
kind, text = scrape()
table.row("metrics have them", all(metric(text, "vmfabric_port_dropped_packets_total", port=name, reason=reason) == count
                                   for name in guests for reason, count in counted(name).items()), text[:2000])
carried = told("eve")
table.row("… and what eve sent", metric(text, "vmfabric_port_sent_packets_total", port="eve") >= carried["sent_packets"] - 10 > fakes
          and metric(text, "vmfabric_port_sent_bytes_total", network="v10", port="eve") > 42 * fakes, str(carried))
table.row("… and DHCP, DNS, pools, ports, passes", metric(text, "vmfabric_dhcp_replies_total", network="v10", type="ack") >= 1
          and metric(text, "vmfabric_dns_queries_total", network="v10") >= 1
          and metric(text, "vmfabric_dns_response_duration_seconds_count") >= 1
          and metric(text, "vmfabric_pool_addresses", network="v10") == 253
          and metric(text, "vmfabric_ports", status="active") == len(guests)
          and metric(text, "vmfabric_reconcile_duration_seconds_count") >= 1
          and metric(text, "vmfabric_port_bring_up_duration_seconds_count") >= len(guests)
          and metric(text, "vmfabric_libvirt_connected") == 0 and metric(text, "vmfabric_problems") == 0, text[:3000])
checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
table.row("promtool finds no fault", checked.returncode == 0 and not checked.stdout + checked.stderr, checked.stdout + checked.stderr)
kind, text = scrape("application/openmetrics-text; version=1.0.0")
table.row("OpenMetrics where it is asked for", kind.startswith("application/openmetrics-text") and text.endswith("# EOF\n")
          and "# TYPE vmfabric_port_sent_bytes counter\n# UNIT vmfabric_port_sent_bytes bytes\n" in text, kind)
idle = [socket.create_connection(("127.0.0.1", 9177)) for _ in range(30)]
for number, connection in enumerate(idle):
    connection.send(b"GET /metrics HTTP/1.1\r\n" if number % 2 else b"G")
begin = time.monotonic()
vmfabric("port", "set", "cat", "dns-name=cat")
table.row("clients that send nothing keep nobody waiting: a change", time.monotonic() - begin < 10, f"{time.monotonic() - begin:.1f} s")
_, text = scrape()
table.row(f"… and another scrape, {time.monotonic() - begin:.1f} s", metric(text, "vmfabric_build_info") == 1)
for connection in idle:
    connection.close()
logged = [line for line in run("dmesg").splitlines() if "vmfabric drop " in line]
table.row("the kernel's log tells of drops: reason, tap, packet", any("vmfabric drop arp: IN=eve " in line for line in logged)
          and any(re.search(f"vmfabric drop ip: IN=eve .*SRC=", line) for line in logged), "\n".join(logged[:5]))
seconds = time.monotonic() - started
table.row(f"… at a limited rate: {len(logged)} lines in {seconds:.0f} s", 10 < len(logged) <= 20 + 10 * seconds)

table.finish()
