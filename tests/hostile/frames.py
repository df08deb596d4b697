"""Frames, made by hand and taken apart: what a hostile guest sends need not be what a kernel would."""

import ipaddress
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
ARP, RARP, IPV4, IPV6, VLAN, QINQ = 0x0806, 0x8035, 0x0800, 0x86DD, 0x8100, 0x88A8
ICMP, IGMP, TCP, UDP, ICMP6 = 1, 2, 6, 17, 58
HOP, ROUTING, FRAGMENT, DESTINATION, NO_NEXT = 0, 43, 44, 60, 59
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ip(text):
    return ipaddress.ip_address(text).packed


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ether(to, source, kind, payload, tags=()):
    """`tags`: VLAN IDs from the outermost, each with its type where it is not 802.1Q's: (0x88a8, 10)."""
    head = mac(to) + mac(source)
    for tag in tags:
        tpid, vid = tag if isinstance(tag, tuple) else (VLAN, tag)
        head += struct.pack("!HH", tpid, vid)
    return head + struct.pack("!H", kind) + payload.ljust(46, b"\0")


def arp(operation, sender_mac, sender, target, target_mac="00:00:00:00:00:00", hardware=1, protocol=IPV4, lengths=(6, 4)):
    head = struct.pack("!HHBBH", hardware, protocol, *lengths, operation)
    return head + mac(sender_mac) + ip(sender) + mac(target_mac) + ip(target)


_id = 0


def ipv4(source, to, protocol, payload, options=b"", fragment=0, more=False, ident=None, ttl=64):
    """`fragment`: the offset in bytes."""
    global _id
    _id += 1
    options += b"\0" * (-len(options) % 4)
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | words, 0, words * 4 + len(payload), (ident or _id) & 0xFFFF,
        (more << 13) | fragment // 8, ttl, protocol, 0, ip(source), ip(to),
    ) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source, to, next_header, payload, hops=255):
    return struct.pack("!IHBB", 6 << 28, len(payload), next_header, hops) + ip(source) + ip(to) + payload


def options6(next_header, words=1):
    """A hop-by-hop or destination options header of padding."""
    return bytes([next_header, words - 1, 1, words * 8 - 4]) + b"\0" * (words * 8 - 4)


def routing6(next_header, kind):
    return bytes([next_header, 2, kind, 1]) + b"\0" * 4 + ip("fe80::1")


def fragment6(next_header, offset, more, ident):
    return struct.pack("!BBHI", next_header, 0, offset | more, ident)


def _pseudo(source, to, protocol, payload):
    source, to = ip(source), ip(to)
    if len(source) == 4:
        return source + to + struct.pack("!BBH", 0, protocol, len(payload))
    return source + to + struct.pack("!II", len(payload), protocol)


def udp(source, to, sport, dport, data=b""):
    head = struct.pack("!HHHH", sport, dport, 8 + len(data), 0)
    total = checksum(_pseudo(source, to, UDP, head + data) + head + data) or 0xFFFF
    return head[:6] + struct.pack("!H", total) + data


def tcp(source, to, sport, dport, flags, seq=0, ack=0, data=b""):
    head = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 5 << 4, flags, 64240, 0, 0)
    total = checksum(_pseudo(source, to, TCP, head + data) + head + data)
    return head[:16] + struct.pack("!H", total) + head[18:] + data


def icmp(kind, code=0, rest=b"\0\0\0\0", data=b""):
    head = struct.pack("!BBH", kind, code, 0) + rest + data
    return head[:2] + struct.pack("!H", checksum(head)) + head[4:]


def icmp6(source, to, kind, body, code=0):
    head = struct.pack("!BBH", kind, code, 0) + body
    total = checksum(_pseudo(source, to, ICMP6, head) + head)
    return head[:2] + struct.pack("!H", total) + head[4:]


def link_local(address):
    a = bytearray(mac(address))
    a[0] ^= 2
    return str(ipaddress.IPv6Address(b"\xfe\x80" + b"\0" * 6 + bytes(a[:3]) + b"\xff\xfe" + bytes(a[3:])))


def lla(kind, address):
    """A source (1) or target (2) link-layer address option."""
    return bytes([kind, 1]) + mac(address)


def dhcp(operation, message, client_mac, your="0.0.0.0", server=None):
    body = struct.pack("!BBBBIHH", operation, 1, 6, 0, 0x12345678, 0, 0x8000) + ip("0.0.0.0") + ip(your) + b"\0" * 8
    body += mac(client_mac).ljust(16, b"\0") + b"\0" * 192 + b"\x63\x82\x53\x63" + bytes([53, 1, message])
    if server:
        body += bytes([54, 4]) + ip(server) + bytes([3, 4]) + ip(server)
    return body + b"\xff"


def query(name, kind=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 0x4242, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


class Packet:
    """What can be read of a frame: tags, kind, source, to, protocol, sport, dport, flags, data, fragment."""

    def __init__(self, frame):
        self.frame = frame
        self.ether_to, self.ether_source = frame[:6].hex(":"), frame[6:12].hex(":")
        self.tags, at = [], 12
        while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
            self.tags.append(int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF)
            at += 4
        self.kind = int.from_bytes(frame[at : at + 2], "big")
        self.untagged = frame[:12] + frame[at:]
        body = frame[at + 2 :]
        self.source = self.to = self.protocol = self.sport = self.dport = self.flags = None
        self.seq = self.ack = self.type = self.code = self.fragment = 0
        self.data = body
        if self.kind == IPV4 and len(body) >= 20:
            length = (body[0] & 15) * 4
            self.source, self.to = (str(ipaddress.IPv4Address(body[i : i + 4])) for i in (12, 16))
            self.protocol = body[9]
            self.fragment = int.from_bytes(body[6:8], "big") & 0x3FFF
            if not self.fragment & 0x1FFF:
                self._above(body[length : int.from_bytes(body[2:4], "big")])
        elif self.kind == IPV6 and len(body) >= 40:
            self.source, self.to = (str(ipaddress.IPv6Address(body[i : i + 16])) for i in (8, 24))
            self.protocol = body[6]
            self._above(body[40 : 40 + int.from_bytes(body[4:6], "big")])
        elif self.kind == ARP and len(body) >= 28:
            self.operation = int.from_bytes(body[6:8], "big")
            self.source, self.to = (str(ipaddress.IPv4Address(body[i : i + 4])) for i in (14, 24))
            self.sender_mac = body[8:14].hex(":")

    def _above(self, body):
        self.data = body
        if self.protocol in (TCP, UDP) and len(body) >= 8:
            self.sport, self.dport = struct.unpack("!HH", body[:4])
            self.data = body[8:]
        if self.protocol == TCP and len(body) >= 20:
            self.seq, self.ack = struct.unpack("!II", body[4:12])
            self.flags, self.data = body[13], body[body[12] >> 4 << 2 :]
        if self.protocol in (ICMP, ICMP6) and len(body) >= 4:
            self.type, self.code = body[:2]

    def __str__(self):
        tags = "".join(f" vlan {vid}" for vid in self.tags)
        return (f"{self.ether_source} > {self.ether_to}{tags} {self.kind:#06x} {self.source} > {self.to} "
                f"{self.protocol} {self.sport}>{self.dport} {self.frame[12:62].hex()}")
