"""Connections made by hand: each segment is sent when the test says so, and seen to arrive or not."""

from stage import *

_ports = 20000
_marks = 0


def mark():
    global _marks
    _marks += 1
    return f"<mark {_marks}>".encode()


def echo_gateway(guest, gateway_ip, gateway_mac):
    """Waits until the host has done with all that the guest sent it before: it answers a ping that came last."""
    token = mark()
    seq = len(token).to_bytes(2, "big")
    request = ipv4(guest.address, gateway_ip, ICMP, icmp(8, 0, b"\x77\x77" + seq, token))
    guest.send(ether(gateway_mac, guest.mac, IPV4, request))
    if not until(lambda: guest.saw(lambda p: p.protocol == ICMP and p.type == 0 and token in p.frame)):
        raise RuntimeError(f"{guest.name}: the gateway answers no ping")


class Flow:
    """A TCP connection of one guest to another. `hop`: the MAC address that either sends to, where that is a router."""

    def __init__(self, client, server, dport, version=4, hop=(None, None), tags=((), ()), sport=None, source=None, to=None):
        global _ports
        _ports += 1
        self.client, self.server, self.sport, self.dport = client, server, sport or _ports, dport
        pick = lambda guest: guest.address if version == 4 else guest.local
        self.a, self.b = source or pick(client), to or pick(server)
        self.hop, self.tags, self.v6 = (hop[0] or server.mac, hop[1] or client.mac), tags, version == 6
        self.seqs = [1000, 5000]  # the next of either side

    def segment(self, side, flags, data=b"", seq=None):
        mine, other = (self.a, self.b) if side == 0 else (self.b, self.a)
        ports = (self.sport, self.dport) if side == 0 else (self.dport, self.sport)
        guest = (self.client, self.server)[side]
        ack = self.seqs[1 - side] if flags & ACK else 0
        body = tcp(mine, other, *ports, flags, self.seqs[side] if seq is None else seq, ack, data)
        wrap, kind = (ipv6(mine, other, TCP, body), IPV6) if self.v6 else (ipv4(mine, other, TCP, body), IPV4)
        return ether(self.hop[side], guest.mac, kind, wrap, self.tags[side])

    def send(self, side, flags, data=b"", seconds=1.0):
        """Whether the other side got it."""
        sender, receiver = (self.client, self.server) if side == 0 else (self.server, self.client)
        frame = self.segment(side, flags, data)
        seq, ports = self.seqs[side], ((self.sport, self.dport) if side == 0 else (self.dport, self.sport))
        receiver.frames.clear()
        sender.send(frame)
        wanted = lambda p: p.protocol == TCP and (p.sport, p.dport, p.seq) == (*ports, seq) and p.flags == flags and p.data.startswith(data)
        arrived = until(lambda: receiver.saw(wanted), seconds)
        if arrived or data:  # what is lost is sent again with the same number
            self.seqs[side] += (len(data) if arrived else 0) + bool(flags & (SYN | FIN))
        return arrived

    def opens(self, seconds=3.0):
        return (self.send(0, SYN, seconds=seconds) and self.send(1, SYN | ACK) and self.send(0, ACK)
                and self.says(0) and self.says(1))

    def says(self, side, seconds=1.0):
        return self.send(side, PSH | ACK, mark(), seconds)
