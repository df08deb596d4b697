"""DHCPv4 servers side by side: sustained rate, latency, CPU and memory per exchange, and what leases held cost.

Each serves 10.99.0.0/16 on the bridge vmf-bench; perfdhcp is a relay agent at 10.99.0.2 behind a veth pair, in a network
namespace of its own. An exchange is DISCOVER, OFFER, REQUEST, ACK. CPU is the server's own (user and system, all
threads), from /proc/PID/stat. Held leases are put into the servers' own files before they start.

Environment: BENCH_HELD ("0 30000 60000"), BENCH_SECONDS (5), BENCH_SERVERS ("ours dnsmasq kea")."""
import os, re, shutil, signal, sqlite3, subprocess, sys, time, uuid

STATE = sys.argv[1]
HELD = [int(n) for n in os.environ.get("BENCH_HELD", "0 30000 60000").split()]
SECONDS = int(os.environ.get("BENCH_SECONDS", "5"))
SERVERS = os.environ.get("BENCH_SERVERS", "ours dnsmasq kea").split()
BRIDGE, RELAY = "vmf-bench", "10.99.0.2"
TICK = os.sysconf("SC_CLK_TCK")


def sh(command, check=True):
    return subprocess.run(command, shell=True, check=check, capture_output=True, text=True).stdout


def address(n):
    """The nth address of the pool, which begins at 10.99.0.10."""
    return "10.99.%d.%d" % divmod(n + 10, 256)


def mac(n):
    return "06:00:%02x:%02x:%02x:%02x" % (n >> 24, n >> 16 & 255, n >> 8 & 255, n & 255)


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"bench: {what}: not within {seconds} s")
        time.sleep(0.05)


class Ours:
    name = "vmfabricd"

    def start(self, held):
        self.run()
        if "bench" not in sh("vmfabric network list"):
            sh("vmfabric network create bench && "
               f"vmfabric subnet create bench 10.99.0.0/16 --host-address 10.99.0.1 --pool 10.99.0.10-10.99.254.255 --relay {RELAY}")
        network = re.search(r'"id": ?"([^"]+)"', sh("vmfabric --json network show bench")).group(1)
        self.stop()
        base = sqlite3.connect(f"{STATE}/vmfabric/vmfabric.db")
        base.execute("DELETE FROM lease")
        end = int(time.time()) + 86400
        rows = ((network, address(n), bytes.fromhex("01" + mac(n).replace(":", "")), mac(n), None, None, end) for n in range(held))
        columns = "network_id, address, client, mac, host_name, port_id, expires"
        base.executemany(f"INSERT INTO lease ({columns}) VALUES (?,?,?,?,?,?,?)", rows)
        base.commit()
        base.close()
        self.run()

    def run(self):
        log = open("/run/rig/vmfabricd.log", "a")
        self.process = subprocess.Popen(["/usr/sbin/vmfabricd"], stdout=log, stderr=log)
        wait_for("vmfabricd", lambda: subprocess.run(["vmfabric", "status"], capture_output=True).returncode in (0, 7))
        wait_for("the bridge", lambda: os.path.exists(f"/sys/class/net/{BRIDGE}") or "bench" not in sh("vmfabric network list"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Dnsmasq:
    """As virtnetworkd writes it, without its script, which would fork for each lease, and without the pings that keep it
    from answering for its first 18 s."""
    name = "dnsmasq"

    def start(self, held):
        folder = f"{STATE}/dnsmasq"
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        with open(f"{folder}/conf", "w") as out:
            out.write(f"strict-order\nexcept-interface=lo\nbind-dynamic\ninterface={BRIDGE}\nport=0\n"
                      "dhcp-range=10.99.0.10,10.99.254.255,255.255.0.0,3600\ndhcp-no-override\ndhcp-authoritative\nno-ping\n"
                      f"dhcp-lease-max=65000\ndhcp-leasefile={folder}/leases\nuser=root\n")
        end = int(time.time()) + 86400
        with open(f"{folder}/leases", "w") as out:
            out.writelines(f"{end} {mac(n)} {address(n)} * 01:{mac(n)}\n" for n in range(held))
        self.process = subprocess.Popen(["dnsmasq", "-k", "-C", f"{folder}/conf", "--pid-file", "--log-facility", "/run/rig/dnsmasq.log"])
        time.sleep(1)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Kea:
    name = "Kea"

    def start(self, held):
        folder = f"{STATE}/kea"
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        os.makedirs("/run/kea", exist_ok=True)
        end = int(time.time()) + 86400
        with open(f"{folder}/leases.csv", "w") as out:
            out.write("address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n")
            out.writelines(f"{address(n)},{mac(n)},01:{mac(n)},86400,{end},1,0,0,,0,\n" for n in range(held))
        with open(f"{folder}/conf", "w") as out:
            out.write('{"Dhcp4": {"interfaces-config": {"interfaces": ["%s"]}, "valid-lifetime": 3600,'
                      '"lease-database": {"type": "memfile", "persist": true, "name": "%s/leases.csv", "lfc-interval": 0},'
                      '"multi-threading": {"enable-multi-threading": true},'
                      '"subnet4": [{"id": 1, "subnet": "10.99.0.0/16", "pools": [{"pool": "10.99.0.10-10.99.254.255"}],'
                      '"relay": {"ip-addresses": ["%s"]}}],'
                      '"loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": "/run/rig/kea.log"}]}]}}'
                      % (BRIDGE, folder, RELAY))
        self.process = subprocess.Popen(["kea-dhcp4", "-c", f"{folder}/conf"])
        time.sleep(3)

    def stop(self):
        self.process.kill()
        self.process.wait()


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1)) / 1024


SEED = [0]


def load(server, rate, seconds, clients=60000):
    """One run of perfdhcp: exchanges done, share of drops, mean latency in ms, CPU in s of the server."""
    SEED[0] += 1
    before = cpu(server.process.pid)
    base = "mac=0a:%02x:00:00:00:00" % SEED[0]
    # Sent from an address of its own: perfdhcp is a relay agent there.
    output = sh(f"ip netns exec load perfdhcp -4 -l load0 -r {rate} -p {seconds} -R {clients} -b {base} -W 500000 -s {SEED[0]}", check=False)
    used = cpu(server.process.pid) - before
    parts = re.split(r"\*\*\*Statistics for: ", output)
    figure = lambda part, name: float(re.search(name + r": ([\d.e+-]+)", part).group(1))
    try:
        offers = next(part for part in parts if part.startswith("DISCOVER-OFFER"))
        acks = next(part for part in parts if part.startswith("REQUEST-ACK"))
        sent, done = figure(offers, "sent packets"), figure(acks, "received packets")
        latency = (figure(offers, "avg delay") + figure(acks, "avg delay")) if done else float("nan")
    except (StopIteration, AttributeError):
        sys.exit("bench: perfdhcp said:\n" + output)
    return done, 1 - done / sent if sent else 1, latency, used, sent


def sustained(server, start):
    """The highest rate with under 1 % drops, exchanges a second, and the CPU of one exchange there in us."""
    best, rate, low, high = (0, 0), start, 0, None
    for _ in range(9):
        # What an overload left behind is not to count at the next rate.
        server.stop()
        server.start(0)
        load(server, min(rate, start), 2)  # warm
        done, drops, _, used, sent = load(server, rate, SECONDS)
        print(f"    asked {rate}/s: {done / SECONDS:.0f}/s, {100 * drops:.2f} % drops, {1e6 * used / max(done, 1):.0f} us", file=sys.stderr)
        # What perfdhcp could not even send says nothing of the server.
        if drops < 0.01 and sent >= 0.95 * rate * SECONDS:
            low = rate
            best = max(best, (done / SECONDS, 1e6 * used / done))
        else:
            if drops < 0.01:
                best = max(best, (done / SECONDS, 1e6 * used / done))
            high = rate
        if high is None:
            rate = low * 2
        elif high - low <= max(low, 100) * 0.15:
            break
        else:
            rate = (low + high) // 2
    return best


def main():
    sh(f"ip netns add load; ip link add load0 netns load address 02:00:00:00:99:02 type veth peer name tap-load")
    servers = {"ours": Ours, "dnsmasq": Dnsmasq, "kea": Kea}
    rates = {"ours": 4000, "dnsmasq": 200, "kea": 4000}
    # Where CPU and latency are measured; dnsmasq's cost grows with the leases held, until it answers nobody.
    gentle = lambda key, held, rate: rate if key != "dnsmasq" else 2 if held else 100
    results = {}
    ours = Ours()
    ours.start(0)
    sh(f"ip link set tap-load master {BRIDGE} up; ip -n load link set load0 up; ip -n load link set lo up;"
       f"ip -n load addr add {RELAY}/16 dev load0")
    sh(f"ip netns exec load ping -c 1 -w 5 10.99.0.1")
    ours.stop()
    for key in SERVERS:
        server = servers[key]()
        for held in HELD:
            print(f"  {server.name} with {held} leases held", file=sys.stderr)
            server.start(held)
            time.sleep(1)
            sh(f"ip link set tap-load master {BRIDGE} up")
            load(server, gentle(key, held, 200), 2, clients=1000)  # warm
            # The pool has 65,000 addresses: as many new clients as there is room for.
            fixed = load(server, gentle(key, held, 400), SECONDS, clients=1000)
            low = load(server, gentle(key, held, 100), SECONDS, clients=1000)
            rate = sustained(server, rates[key]) if held == 0 else (float("nan"), float("nan"))
            results[key, held] = (rate[0], rate[1], low[2], 1e6 * fixed[3] / fixed[0] if fixed[0] else float("nan"), memory(server.process.pid), fixed[1])
            server.stop()
    print(f"{'':28}" + "".join(f"{servers[k].name:>12}" for k in SERVERS) + "".join(f"{'/ ' + servers[k].name:>12}" for k in SERVERS if k != "ours"))

    def row(title, pick, form):
        values = [pick(k) for k in SERVERS]
        ratios = [values[SERVERS.index("ours")] / v if v else float("nan") for k, v in zip(SERVERS, values) if k != "ours"] if "ours" in SERVERS else []
        print(f"{title:28}" + "".join(f"{form % v:>12}" for v in values) + "".join(f"{'%.3f' % r:>12}" for r in ratios))

    row("exchanges/s, < 1 % drops", lambda k: results[k, HELD[0]][0], "%.0f")
    row("  CPU us each, there", lambda k: results[k, HELD[0]][1], "%.1f")
    for held in HELD:
        row(f"ms at 100/s *, {held} held", lambda k: results[k, held][2], "%.2f")
    for held in HELD:
        row(f"CPU us at 400/s *, {held} held", lambda k: results[k, held][3], "%.0f")
    for held in HELD:
        row(f"memory MiB, {held} held", lambda k: results[k, held][4], "%.1f")
    print("* dnsmasq: at 100/s, and at 2/s with leases held")
    for held in HELD:
        for k in SERVERS:
            if results[k, held][5] > 0.01:
                print(f"note: {servers[k].name} with {held} held dropped {100 * results[k, held][5]:.0f} % there")


main()
