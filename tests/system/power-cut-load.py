"""Twenty guests on the network `nat`, each a tap that is made as libvirt makes it, with the hook's two calls; each takes,
renews and gives back its lease, for ever. Says on /dev/ttyS1, before it goes on:

ACK MAC ADDRESS UNTIL    the lease is acknowledged, to last until then (Unix seconds) at least
END MAC                  it is about to be given back
"""

import fcntl, os, random, select, socket, struct, subprocess, sys, termios, time, uuid

GUESTS = 20
BRIDGE = "vmf-nat"
tell = os.open("/dev/ttyS1", os.O_WRONLY | os.O_NOCTTY)


def say(line):
    os.write(tell, line.encode() + b"\n")
    termios.tcdrain(tell)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Guest:
    def __init__(self, number):
        self.name = f"load{number}"
        self.mac = bytes([0x52, 0x54, 0, 0xD0, 0, number])
        self.text = ":".join(f"{b:02x}" for b in self.mac)
        self.address = self.server = None
        self.xid = 0
        self.wanted = None
        self.start()

    def start(self):
        hook("prepare", self.xml())
        self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.tap, 0x400454CA, struct.pack("16sH14x", self.name.encode(), 0x0002 | 0x1000))  # TAP, NO_PI
        run("ip", "link", "set", self.name, "address", "fe" + self.text[2:], "master", BRIDGE, "up")
        hook("start", self.xml())

    def xml(self):
        return f"""<domain type='qemu' id='1'><name>{self.name}</name><uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, self.name)}</uuid>
          <devices><interface type='network'><mac address='{self.text}'/><source network='nat' bridge='{BRIDGE}'/>
          <target dev='{self.name}'/></interface></devices></domain>"""

    def send(self, kind, options=b"", broadcast=True):
        self.xid, self.wanted, self.at = random.getrandbits(32), kind, time.time()
        ciaddr = b"\0" * 4 if broadcast else self.address
        bootp = struct.pack("!BBBBIHH", 1, 1, 6, 0, self.xid, 0, 0) + ciaddr + bytes(12) + self.mac + bytes(10 + 192)
        bootp += b"\x63\x82\x53\x63" + bytes([53, 1, kind]) + options + b"\xff"
        bootp += bytes(max(0, 300 - len(bootp)))
        source, target = (bytes(4), b"\xff" * 4) if broadcast else (self.address, self.server)
        udp = struct.pack("!HHHH", 68, 67, 8 + len(bootp), 0) + bootp
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + source + target
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        ethernet = b"\xff" * 6 + self.mac + b"\x08\x00"
        os.write(self.tap, ethernet + header + udp)

    def step(self):
        """What comes next, when nothing is under way."""
        if self.address is None:
            self.send(1)
        elif random.random() < 0.9:
            self.send(3, broadcast=False)  # RENEWING
        else:
            say(f"END {self.text}")
            self.send(7, bytes([54, 4]) + self.server, broadcast=False)
            self.address = self.wanted = None
            self.send(1)

    def receive(self):
        frame = os.read(self.tap, 2048)
        if frame[12:14] != b"\x08\x00" or frame[23] != 17 or frame[36:38] != b"\0\x44":
            return
        bootp = frame[42:]
        if len(bootp) < 240 or struct.unpack("!I", bootp[4:8])[0] != self.xid:
            return
        options, rest = {}, bootp[240:]
        while rest and rest[0] != 255:
            if rest[0] == 0:
                rest = rest[1:]
                continue
            options[rest[0]] = rest[2:2 + rest[1]]
            rest = rest[2 + rest[1]:]
        kind, yiaddr = options[53][0], bootp[16:20]
        if kind == 2 and self.wanted == 1:
            self.server = options[54]
            self.send(3, bytes([50, 4]) + yiaddr + bytes([54, 4]) + self.server)
        elif kind == 5 and self.wanted == 3:
            self.address, self.wanted = yiaddr, None
            until = int(self.at) + struct.unpack("!I", options[51])[0]
            say(f"ACK {self.text} {socket.inet_ntoa(yiaddr)} {until}")
            self.step()
        elif kind == 6:
            self.address = self.wanted = None
            self.step()


def run(*command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        say(f"{command}: {done.stdout}{done.stderr}")
        sys.exit(1)


def hook(operation, xml):
    name = xml.split("<name>")[1].split("<")[0]
    run("vmfabric-hook", "qemu", name, operation, "begin", "-", text=xml)


guests = [Guest(number) for number in range(GUESTS)]
by_tap = {guest.tap: guest for guest in guests}
say("all guests run")
for guest in guests:
    guest.step()
while True:
    for tap in select.select(list(by_tap), [], [], 1)[0]:
        by_tap[tap].receive()
    for guest in guests:  # a question that was not heard
        if guest.wanted is None or time.time() - guest.at > 5:
            guest.step()
