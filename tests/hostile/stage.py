"""The host's taps as guests, and everywhere that a frame could be seen: other taps, the uplink, the host itself."""

import ctypes
import fcntl
import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid

from frames import *

LOGS = "/run/rig"
_reading = threading.RLock()
_libc = ctypes.CDLL(None, use_errno=True)


def run(*command, stdin=None, check=True):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def vmfabric(*arguments):
    return run("vmfabric", *arguments)


class Vantage:
    """Somewhere that frames are seen. `frames` is what came since it was last cleared."""

    all = []

    def __init__(self, name, fd):
        self.name, self.fd, self.frames, self.watch = name, fd, [], None
        os.set_blocking(fd, False)
        Vantage.all.append(self)

    def take(self, frame):
        if self.watch:
            self.watch(self, frame)
        self.frames.append(frame)

    def read(self):
        while True:
            try:
                frame = os.read(self.fd, 65536)
            except BlockingIOError:
                return
            except OSError:  # its tap is gone
                return
            self.take(frame)

    def saw(self, wanted):
        return any(wanted(Packet(frame)) for frame in list(self.frames))


class Sniffer(Vantage):
    """A packet socket on a NIC, of another network namespace perhaps: what comes in there. `all`: for others too; on a
    bridge that would make the bridge give itself what is not for it."""

    def __init__(self, name, nic, namespace=None, all=False):
        with Namespace(namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
            self.socket.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: the tag that the kernel takes off
            self.socket.bind((nic, 3))
            index = socket.if_nametoindex(nic)
            kind = 1 if all else 2  # PACKET_MR_PROMISC, PACKET_MR_ALLMULTI
            self.socket.setsockopt(263, 1, struct.pack("iHH8s", index, kind, 0, b""))  # PACKET_ADD_MEMBERSHIP
        super().__init__(name, self.socket.fileno())

    def read(self):
        while True:
            try:
                frame, extra, _, source = self.socket.recvmsg(65536, 256)
            except BlockingIOError:
                return
            except OSError:
                return
            if source[2] == socket.PACKET_OUTGOING:
                continue
            for level, kind, data in extra:
                if (level, kind) == (263, 8):
                    status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", data[:20])
                    if status & 0x10:  # TP_STATUS_VLAN_VALID
                        frame = frame[:12] + struct.pack("!HH", tpid if status & 0x40 else VLAN, tci) + frame[12:]
            self.take(frame)

    def send(self, frame):
        self.socket.send(frame)


class Namespace:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        if self.name:
            self.before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
            assert _libc.setns(there, 0x40000000) == 0
            os.close(there)

    def __exit__(self, *_):
        if self.name:
            assert _libc.setns(self.before, 0x40000000) == 0
            os.close(self.before)


class Guest(Vantage):
    """A tap with somebody at its other end, who answers ARP and echo requests like any machine."""

    by_name = {}

    def __init__(self, name, network, bridge, address, port=(), metadata="", number=None, prepared=True):
        Guest.by_name[name] = self
        self.network, self.bridge, self.address = network, bridge, address
        self.mac = f"52:54:00:00:{len(Guest.by_name):02x}:{number or 1:02x}"
        self.local, self.metadata, self.answers, self.own = link_local(self.mac), metadata, True, {address}
        if port is not None:
            options = ["--address", address] if address else []
            vmfabric("port", "create", network, "--name", name, "--mac", self.mac, *options, *port)
        if prepared:
            self.hook("prepare", name)
        self.open(name)

    def open(self, name):
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))  # TUNSETIFF: IFF_TAP | IFF_NO_PI
        super().__init__(name, fd)
        run("ip", "link", "set", name, "address", "fe" + self.mac[2:])
        return self

    def plug(self):
        """As libvirt does: on the bridge and up."""
        run("ip", "link", "set", self.name, "master", self.bridge, "up")
        return self

    def start(self):
        self.plug()
        self.hook("start", self.name)
        return self

    def hook(self, operation, name):
        owner = uuid.uuid5(uuid.NAMESPACE_DNS, name)
        definition = f"""<domain type='qemu' id='1'><name>{name}</name><uuid>{owner}</uuid>
          <metadata><vmfabric:domain xmlns:vmfabric='https://vmfabric.org/xmlns/domain/1.0'>
            <vmfabric:interface mac='{self.mac}' network='{self.network}' {self.metadata}/></vmfabric:domain></metadata>
          <devices><interface type='bridge'><mac address='{self.mac}'/><source bridge='{self.bridge}'/>
            <target dev='{name}'/></interface></devices></domain>"""
        run("vmfabric-hook", "qemu", name, operation, "begin", "-", stdin=definition)

    def close(self):
        with _reading:  # whose descriptor it is next must not be read
            Vantage.all.remove(self)
            del Guest.by_name[self.name]
            os.close(self.fd)

    def take(self, frame):
        super().take(frame)
        if not self.answers:
            return
        packet = Packet(frame)
        if packet.tags:
            return
        if packet.kind == ARP and packet.operation == 1 and packet.to in self.own and packet.source != packet.to:
            self.send(ether(packet.sender_mac, self.mac, ARP, arp(2, self.mac, packet.to, packet.source, packet.sender_mac)))
        elif packet.protocol == ICMP and packet.type == 8 and packet.to in self.own and packet.ether_to == self.mac:
            echo = packet.data[4:]
            self.send(ether(packet.ether_source, self.mac, IPV4,
                            ipv4(packet.to, packet.source, ICMP, icmp(0, 0, echo[:4], echo[4:]))))

    def send(self, frame):
        try:
            os.write(self.fd, frame)
        except BlockingIOError:
            pass

    # What an honest guest sends
    def udp(self, to, data, sport=5000, dport=6000, via=None, source=None, tags=()):
        source = source or self.address
        peer = via or next(guest.mac for guest in Guest.by_name.values() if to in guest.own)
        return ether(peer, self.mac, IPV4, ipv4(source, to, UDP, udp(source, to, sport, dport, data)), tags)

    def announce(self):
        return ether(BROADCAST, self.mac, ARP, arp(1, self.mac, self.address or "0.0.0.0", self.address or "10.255.255.1"))


def pump(wait=0.0):
    """Reads all that is there, and waits for something that long."""
    readable = [vantage.fd for vantage in Vantage.all]
    try:
        select.select(readable, [], [], wait)
    except OSError:  # one was closed meanwhile
        pass
    with _reading:
        for vantage in Vantage.all:
            vantage.read()


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        pump(0.02)
    return True


def clear():
    pump()
    for vantage in Vantage.all:
        vantage.frames.clear()


_barriers = 0


def barrier(*guests):
    """Returns when the host has done with all that these sent before: somebody saw a broadcast that they sent last."""
    global _barriers
    for guest in guests:
        _barriers += 1
        mark = f"barrier-{_barriers}.".encode()
        payload = arp(1, guest.mac, guest.address or "0.0.0.0", "10.255.255.254") + mark
        frame = ether(BROADCAST, guest.mac, ARP, payload)
        guest.send(frame)
        points = [v for v in Vantage.all if v is not guest and v.name in guest.heard_by]
        if not until(lambda: all(any(mark in f for f in v.frames) for v in points)):
            missing = [v.name for v in points if not any(mark in f for f in v.frames)]
            raise RuntimeError(f"{guest.name}'s last frame was not seen by {missing}")
    pump()


def all_drops():
    """How many frames the host says that it dropped, by reason and link."""
    text = run("nft", "list", "table", "bridge", "vmfabric", check=False)
    sets = re.findall(r"\tset drops_(\w+) \{(.*?)\n\t\}", text, re.S)
    counted = {(reason, link): int(count) for reason, body in sets
               for link, count in re.findall(r'"([^"]+)" counter packets (\d+)', body)}
    return {key: count for key, count in counted.items() if count}


def host_drops():
    """How many packets the host itself dropped of what guests sent to it or through it, by reason and source."""
    text = run("nft", "list", "table", "inet", "vmfabric", check=False)
    counted = {}
    for reason, body in re.findall(r"\tset drops_([a-z]+)[46] \{(.*?)\n\t\}", text, re.S):
        for source, count in re.findall(r'"[^"]+" \. (\S+) counter packets (\d+)', body):
            counted[reason, source] = counted.get((reason, source), 0) + int(count)
    return counted


def drops(reason, link):
    return all_drops().get((reason, link), 0)


class Table:
    """The cases and their outcomes."""

    def __init__(self):
        self.passed, self.failed = 0, []

    def row(self, text, good, detail=""):
        print(f"{'ok  ' if good else 'FAIL'}  {text}" + ("" if good else f"\n          {detail}"), flush=True)
        if good:
            self.passed += 1
        else:
            self.failed.append(text)

    def finish(self):
        print(f"{self.passed} of {self.passed + len(self.failed)} cases passed", flush=True)
        if self.failed:
            print("failed:", *self.failed, sep="\n  ")
        sys.exit(bool(self.failed) or not self.passed)


table = Table()


def same(frame):
    """Whether a packet is this frame, whatever tag it has now, and less its padding."""
    packet = Packet(frame)
    whole = packet.untagged.rstrip(b"\0")
    return lambda other: other.untagged.rstrip(b"\0") == whole


def seen(frames):
    """Where any of these frames is seen."""
    wanted = [same(frame) for frame in frames]
    return [f"{v.name} saw {Packet(f)}" for v in Vantage.all for f in v.frames if any(w(Packet(f)) for w in wanted)]


def blocked(text, guest, frames, reason=None, control=None):
    """These frames from this guest are seen nowhere; by a port without port security they are (so that they could)."""
    clear()
    before = all_drops()
    for frame in frames:
        guest.send(frame)
    barrier(guest)
    where = seen(frames)
    table.row(f"blocked: {text}", not where, "; ".join(where[:3]))
    if reason:
        after = all_drops()
        count = after.get((reason, guest.name), 0) - before.get((reason, guest.name), 0)
        if count < len(frames):
            table.row(f"  … and counted as {reason}", False, f"{count} of {len(frames)}")
        # What the bridge floods is not for others, whom it does not know to be elsewhere.
        wrong = [f"{key}: {after[key]}" for key in after
                 if key != (reason, guest.name) and key[0] != "foreign" and after[key] != before.get(key, 0)]
        if wrong:
            table.row(f"  … and as nothing else, nor another's", False, "; ".join(wrong))
    if control:
        clear()
        for frame in frames:
            control.send(frame)
        barrier(control)
        unheard = [str(Packet(f)) for f in frames if not seen([f])]
        if unheard:
            table.row(f"  … and heard of a port without port security: {text}", False, "; ".join(unheard[:2]))
        for other in Guest.by_name.values():  # bridges believe who spoke last
            other.send(other.announce())
        barrier(control)


def passes(text, guest, frame, *witnesses):
    """This frame from this guest is seen by these, and by nobody but them."""
    clear()
    guest.send(frame)
    barrier(guest)
    wanted = same(frame)
    missing = [w.name for w in witnesses if not w.saw(wanted)]
    others = [v.name for v in Vantage.all if v not in witnesses and v is not guest and v.saw(wanted)]
    unicast = not frame[0] & 1
    good = not missing and not (unicast and others)
    table.row(f"passes:  {text}", good, f"not seen by {missing}" if missing else f"seen by {others} too")
