"""See kill.sh. ACKs and Replies are read off the wire, before any client's own books."""
import json, os, random, socket, struct, subprocess, sys, threading, time

ROUNDS, FAMILY = int(sys.argv[1]), sys.argv[2]
SEED = int(os.environ.get("SEED", time.time_ns() & 0xffffffff))
print(f"{ROUNDS} rounds of DHCPv{FAMILY}, SEED={SEED}", flush=True)
chance = random.Random(SEED)


def sh(command):
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {seconds} s; SEED={SEED}")
        time.sleep(0.01)


def start():
    log = open("/run/rig/vmfabricd.log", "a")
    daemon = subprocess.Popen(["/usr/sbin/vmfabricd"], stdout=log, stderr=log)
    wait_for("vmfabricd", lambda: subprocess.run(["vmfabric", "status"], capture_output=True).returncode in (0, 7))
    return daemon


# By address: whose it is, and until when.
lock, acks, wrong = threading.Lock(), {}, []


def acknowledged(address, client, seconds):
    now = time.time()
    with lock:
        old = acks.get(address)
        if old and old[0] != client and old[1] > now:
            wrong.append(f"{address} of {old[0]} was given to {client}")
        acks[address] = (client, now + seconds)


def note4(payload):
    """An ACK with a lease: whose address it is (by MAC), and for how long."""
    if len(payload) < 241 or payload[0] != 2 or payload[236:240] != b"c\x82Sc":
        return
    options, at = {}, 240
    while at + 1 < len(payload) and payload[at] != 255:
        if payload[at] == 0:
            at += 1
            continue
        options[payload[at]] = payload[at + 2:at + 2 + payload[at + 1]]
        at += 2 + payload[at + 1]
    if options.get(53) == b"\x05" and 51 in options:
        acknowledged(socket.inet_ntoa(payload[16:20]), payload[28:34].hex(":"), struct.unpack(">I", options[51])[0])


def options6(data):
    while len(data) >= 4:
        code, length = struct.unpack(">HH", data[:4])
        yield code, data[4:4 + length]
        data = data[4 + length:]


def note6(payload):
    """A Reply with addresses (RFC 8415 sections 21.4, 21.6): whose they are (by DUID), and for how long."""
    if not payload or payload[0] != 7:
        return
    options = list(options6(payload[4:]))
    client = next((data.hex() for code, data in options if code == 1), None)
    for association in (data[12:] for code, data in options if code == 3):
        for address in (data for code, data in options6(association) if code == 5):
            acknowledged(socket.inet_ntop(socket.AF_INET6, address[:16]), client, struct.unpack(">I", address[20:24])[0])


def sniff(sniffer):
    while True:
        packet = sniffer.recv(2048)
        if FAMILY == "4" and len(packet) > 28 and packet[9] == 17 and packet[20:22] == b"\x00\x43":
            note4(packet[28:])
        if FAMILY == "6" and len(packet) > 48 and packet[6] == 17 and packet[40:42] == b"\x02\x23":
            note6(packet[48:])


daemon = start()
SUBNET = {
    "4": "10.98.0.0/16 --host-address 10.98.0.1 --relay 10.98.0.2 --pool 10.98.0.10-10.98.60.255",
    "6": "fd00:98::/64 --pool fd00:98::1000-fd00:98::ffff",
}[FAMILY]
sh(f"vmfabric network create load && vmfabric subnet create load {SUBNET}")
wait_for("the bridge", lambda: subprocess.run(["ip", "link", "show", "vmf-load"], capture_output=True).returncode == 0)
sh("ip netns add load; ip link add load0 netns load address 02:00:00:00:98:02 type veth peer name tap-load;"
   "ip link set tap-load master vmf-load up; ip netns exec load sysctl -qw net.ipv6.conf.load0.accept_dad=0;"
   "ip -n load link set load0 up; ip -n load link set lo up")
if FAMILY == "4":
    sh("ip -n load addr add 10.98.0.2/16 dev load0; ip netns exec load ping -c 1 -w 5 10.98.0.1")
# Seen where it enters the client's side.
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
sniffer.bind(("tap-load", 0))
threading.Thread(target=sniff, args=(sniffer,), daemon=True).start()

for number in range(1, ROUNDS + 1):
    seed = chance.randrange(1 << 16)
    # `ip` becomes perfdhcp, so that the kill below is perfdhcp's.
    command = (f"ip netns exec load perfdhcp -{FAMILY} -l load0 -r {chance.randrange(200, 2000)} -p 30 -R 4000 -s {seed} "
               + ("-b mac=0a:00:00:00:%02x:00" if FAMILY == "4" else "-b duid=000300010a000000%02x00") % (number % 4))
    load = subprocess.Popen(command.split(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with lock:
        marks = dict(acks)
    # At least one new ACK, so that the kill meets a server at work.
    wait_for("an ACK", lambda: any(marks.get(address) != entry for address, entry in list(acks.items())))
    time.sleep(chance.random())
    daemon.kill()
    daemon.wait()
    load.kill()
    load.wait()
    time.sleep(0.1)
    daemon = start()
    leases = {lease["address"]: lease for lease in json.loads(sh("vmfabric --json lease list load"))}
    with lock:
        for address, (client, end) in acks.items():
            lease = leases.get(address)
            if lease is None or lease["mac" if FAMILY == "4" else "client"] != client:
                wrong.append(f"{address} was acknowledged to {client}; the store has {lease}")
            elif lease["expires"] + 1 < end - 1:
                wrong.append(f"{address} was acknowledged until {end}; the store says {lease['expires']}")
        if wrong:
            sys.exit(f"round {number}, SEED={SEED}:\n" + "\n".join(wrong[:20]))
        total = len(acks)
    if number % 10 == 0 or number == ROUNDS:
        print(f"round {number}: {total} addresses acknowledged, all of them stored, none held twice", flush=True)
daemon.terminate()
daemon.wait()
