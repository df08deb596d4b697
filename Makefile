# vmfabric. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.NOTPARALLEL:

PREFIX ?= /usr
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
SYSCONFDIR ?= /etc
SYSTEMDUNITDIR ?= $(PREFIX)/lib/systemd/system
DBUSPOLICYDIR ?= $(PREFIX)/share/dbus-1/system.d
DBUSSERVICEDIR ?= $(PREFIX)/share/dbus-1/system-services
DBUSINTERFACEDIR ?= $(PREFIX)/share/dbus-1/interfaces
POLKITACTIONDIR ?= $(PREFIX)/share/polkit-1/actions
NMCONFDIR ?= $(PREFIX)/lib/NetworkManager/conf.d
SYSTEMDNETWORKDIR ?= $(PREFIX)/lib/systemd/network
FIREWALLDDIR ?= $(PREFIX)/lib/firewalld
BASHCOMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMPLETIONDIR ?= $(PREFIX)/share/zsh/vendor-completions
FISHCOMPLETIONDIR ?= $(PREFIX)/share/fish/vendor_completions.d
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/vmfabric
DESTDIR ?=

CARGO ?= cargo
CARGOFLAGS ?= --locked
# Where `install` takes the binaries from.
BIN_DIR ?= target/release
# Tests that start guests and hosts: how many at once.
TEST_THREADS ?= 3

INSTALL ?= install
RIG := tests/rig
# A toolchain of rustup's, and the tools of the administrator, where a bare shell does not look.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

say = @echo "== $(1)"

.PHONY: all build demo test test-unit check deny bench bench-filter bench-dbus bench-dhcp bench-dns fuzz soak deb rpm arch sbom install uninstall fmt lint clean help rust-deps root

all: build

build: rust-deps ## build the daemon, the command line and the hook (release)
	$(call say,building (release))
	$(CARGO) build --release $(CARGOFLAGS)

demo: root ## two real guests on a network of ours, in private namespaces: the main job, shown (root)
	$(call say,packages for the demo)
	@$(RIG)/install-deps demo
	$(call say,building (release))
	$(CARGO) build --release $(CARGOFLAGS)
	$(call say,the guests' kernel; fetched once per machine)
	@$(RIG)/stock-kernel >/dev/null
	$(call say,the demo; this machine is left as it was)
	@VMFABRIC_BIN=$(abspath target/release) $(RIG)/private-host -t 300 -f tests/demo

test: root ## all tests, those on real guests and kernels too (root)
	$(call say,packages for the tests)
	@$(RIG)/install-deps test
	$(call say,kernels of the test rig; built once per machine)
	@$(RIG)/build-kernels
	@$(RIG)/stock-kernel
	@$(RIG)/make-guest
	$(call say,libvirt's modular daemons$(comma) which Debian does not ship; built once per machine)
	@$(RIG)/build-libvirt
	@$(RIG)/fetch-resolved >/dev/null
	$(call say,a Debian with systemd for the package; made once per machine)
	@$(RIG)/make-system
	$(call say,Debian 13 for its libvirt and nftables; made once per machine)
	@$(RIG)/make-root trixie
	$(call say,tests that need no root)
	$(CARGO) test $(CARGOFLAGS) --no-fail-fast
	$(call say,tests on private hosts$(comma) User Mode Linux hosts and the stock kernel; $(TEST_THREADS) at once)
	@VMFABRIC_BIN=$(abspath target/debug) CARGO="$(CARGO)" CARGOFLAGS="$(CARGOFLAGS)" $(RIG)/root-tests $(TEST_THREADS)

comma := ,

test-unit: check ## the tests that need no root
	$(call say,tests that need no root)
	$(CARGO) test $(CARGOFLAGS) --no-fail-fast

check: rust-deps ## rustfmt and clippy, warnings denied
	$(call say,format)
	@if $(CARGO) fmt --version >/dev/null 2>&1; then $(CARGO) fmt --check; \
	else echo "skipped: this toolchain has no rustfmt"; fi
	$(call say,lints)
	@if $(CARGO) clippy --version >/dev/null 2>&1; then $(CARGO) clippy $(CARGOFLAGS) --all-targets -- -D warnings; \
	else echo "skipped: this toolchain has no clippy (Debian's rustc-web comes without)"; fi

# Debian has no cargo-deny: it is built, once per machine, into TOOLS.
CARGO_DENY := cargo-deny@0.20.2
TOOLS ?= $(HOME)/.cache/vmfabric-tools

deny: rust-deps ## licences, sources and known faults of the crates, by deny.toml
	@[ "$$($(TOOLS)/bin/cargo-deny --version 2>/dev/null)" = "$(subst @, ,$(CARGO_DENY))" ] || \
	  { echo "== $(CARGO_DENY), built once per machine" && $(CARGO) install --quiet --locked --debug --root $(TOOLS) $(CARGO_DENY); }
	$(TOOLS)/bin/cargo-deny check --hide-inclusion-graph --allow parse-error licenses bans sources
	@if timeout 30 git ls-remote -q https://github.com/rustsec/advisory-db HEAD >/dev/null 2>&1; \
	then $(TOOLS)/bin/cargo-deny check advisories; \
	else echo "not checked: known faults. Their list, github.com/rustsec/advisory-db, is not to be reached from here"; fi

bench: root ## speed, printed as ratios measured in one run (root)
	@$(RIG)/install-deps test
	$(CARGO) bench $(CARGOFLAGS)

bench-filter: root ## what filters take to load and change, and cost a packet, beside Neutron's iptables rules (root)
	@$(RIG)/install-deps test
	@$(RIG)/build-kernels >/dev/null
	$(CARGO) bench $(CARGOFLAGS) --bench filter --bench packets

bench-dbus: root ## networks and ports through the bus, listed and watched, beside virsh (root)
	@$(RIG)/install-deps test
	$(CARGO) bench $(CARGOFLAGS) --bench dbus

bench-dns: root ## what a DNS answer costs: ours, dnsmasq as libvirt has it, unbound (root)
	@$(RIG)/install-deps bench
	$(CARGO) build --release $(CARGOFLAGS)
	@VMFABRIC_BIN=$(abspath target/release) $(RIG)/private-host -t 900 -f benches/dns.sh

bench-dhcp: root ## our DHCP server beside dnsmasq and Kea, driven by perfdhcp on one bridge, as ratios (root)
	@$(RIG)/install-deps test
	$(CARGO) build --release $(CARGOFLAGS)
	@VMFABRIC_BIN=$(abspath target/release) $(RIG)/private-host -t 1800 -f benches/dhcp/run

fuzz: rust-deps ## fuzz the packet parsers and engines, FUZZ_SECONDS (3600) for each target of fuzz/
	@$(RIG)/install-deps fuzz
	fuzz/run

soak: root ## 1,000 rounds of kill -9 under load (VMFABRIC_SOAK_ROUNDS) (root)
	@$(RIG)/install-deps test
	VMFABRIC_SOAK_ROUNDS=$${VMFABRIC_SOAK_ROUNDS:-1000} $(CARGO) test $(CARGOFLAGS) --test hosts -- --ignored --nocapture kill_under_load

deb: rust-deps ## a Debian package in target/debian/
	@$(RIG)/install-deps deb
	$(CARGO) build --release $(CARGOFLAGS)
	packaging/build-deb target/debian

rpm: rust-deps ## an RPM of what is here, in target/rpm
	@$(RIG)/install-deps rpm
	$(CARGO) build --release $(CARGOFLAGS)
	packaging/build-rpm target/rpm

arch: rust-deps ## a package for Arch Linux of what is here, in target/arch
	@$(RIG)/install-deps arch
	$(CARGO) build --release $(CARGOFLAGS)
	packaging/build-arch target/arch

sbom: rust-deps ## what the programs are made of, as SPDX JSON, in target/sbom.spdx.json
	@mkdir -p target
	packaging/sbom >target/sbom.spdx.json
	@echo target/sbom.spdx.json

MANPAGES = $(wildcard docs/man/*.1 docs/man/*.5 docs/man/*.8)
# Where they link to each other: the guides in a folder below README.md.
GUIDES = README.md $(wildcard docs/*.md) docs/neutron-to-vmfabric

# $(call install_with_paths,MODE,FILE,TARGET): /usr/sbin and /usr/bin in FILE become what PREFIX asks for.
install_with_paths = sed -e 's|/usr/sbin/vmfabric|$(SBINDIR)/vmfabric|g' -e 's|/usr/bin/vmfabric|$(BINDIR)/vmfabric|g' \
  $(2) | $(INSTALL) -D -m $(1) /dev/stdin $(3)

install: ## copy what was built to DESTDIR/PREFIX (PREFIX=/usr: libvirt, D-Bus and polkit look there)
	@[ -x $(BIN_DIR)/vmfabricd ] || { echo "make install: no $(BIN_DIR)/vmfabricd; run \`make\` first" >&2; exit 1; }
	$(INSTALL) -D -m 755 $(BIN_DIR)/vmfabricd $(DESTDIR)$(SBINDIR)/vmfabricd
	$(INSTALL) -D -m 755 $(BIN_DIR)/vmfabric-hook $(DESTDIR)$(SBINDIR)/vmfabric-hook
	$(INSTALL) -D -m 755 $(BIN_DIR)/vmfabric $(DESTDIR)$(BINDIR)/vmfabric
	$(foreach f,$(wildcard dbus/*.conf),$(INSTALL) -D -m 644 $(f) $(DESTDIR)$(DBUSPOLICYDIR)/$(notdir $(f)) &&) :
	$(foreach f,$(wildcard dbus/*.service),$(INSTALL) -D -m 644 $(f) $(DESTDIR)$(DBUSSERVICEDIR)/$(notdir $(f)) &&) :
	$(foreach f,$(wildcard dbus/*.xml),$(INSTALL) -D -m 644 $(f) $(DESTDIR)$(DBUSINTERFACEDIR)/$(notdir $(f)) &&) :
	$(foreach f,$(wildcard dbus/*.policy),$(INSTALL) -D -m 644 $(f) $(DESTDIR)$(POLKITACTIONDIR)/$(notdir $(f)) &&) :
	$(foreach f,$(wildcard systemd/*.service systemd/*.socket),\
	  $(call install_with_paths,644,$(f),$(DESTDIR)$(SYSTEMDUNITDIR)/$(notdir $(f))) &&) :
	$(foreach f,$(wildcard packaging/NetworkManager/*.conf),\
	  $(INSTALL) -D -m 644 $(f) $(DESTDIR)$(NMCONFDIR)/$(notdir $(f)) &&) :
	$(foreach f,$(wildcard packaging/systemd-networkd/*),\
	  $(INSTALL) -D -m 644 $(f) $(DESTDIR)$(SYSTEMDNETWORKDIR)/$(notdir $(f)) &&) :
	$(INSTALL) -D -m 644 packaging/firewalld/zone.xml $(DESTDIR)$(FIREWALLDDIR)/zones/vmfabric.xml
	$(INSTALL) -D -m 644 packaging/firewalld/policy.xml $(DESTDIR)$(FIREWALLDDIR)/policies/vmfabric-in.xml
	$(foreach f,$(MANPAGES),{ $(INSTALL) -d $(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(f))) && gzip -9n <$(f) \
	  >$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(f)))/$(notdir $(f)).gz; } &&) :
	$(foreach f,$(GUIDES),$(INSTALL) -D -m 644 $(f) $(DESTDIR)$(DOCDIR)/$(f) &&) :
	$(INSTALL) -D -m 644 packaging/completions/vmfabric.bash $(DESTDIR)$(BASHCOMPLETIONDIR)/vmfabric
	$(INSTALL) -D -m 644 packaging/completions/_vmfabric $(DESTDIR)$(ZSHCOMPLETIONDIR)/_vmfabric
	$(INSTALL) -D -m 644 packaging/completions/vmfabric.fish $(DESTDIR)$(FISHCOMPLETIONDIR)/vmfabric.fish
	$(call install_with_paths,755,packaging/hooks/qemu,$(DESTDIR)$(SYSCONFDIR)/libvirt/hooks/qemu.d/vmfabric)
	$(call install_with_paths,755,packaging/hooks/network,$(DESTDIR)$(SYSCONFDIR)/libvirt/hooks/network.d/vmfabric)
	$(foreach f,$(wildcard packaging/vmfabricd.toml),\
	  [ -e $(DESTDIR)$(SYSCONFDIR)/vmfabric/vmfabricd.toml ] || \
	  $(INSTALL) -D -m 644 $(f) $(DESTDIR)$(SYSCONFDIR)/vmfabric/vmfabricd.toml &&) :

uninstall: ## remove what `install` put there; state in /var/lib/vmfabric and the configuration stay
	rm -f $(DESTDIR)$(SBINDIR)/vmfabricd $(DESTDIR)$(SBINDIR)/vmfabric-hook $(DESTDIR)$(BINDIR)/vmfabric
	rm -f $(DESTDIR)$(SYSCONFDIR)/libvirt/hooks/qemu.d/vmfabric $(DESTDIR)$(SYSCONFDIR)/libvirt/hooks/network.d/vmfabric
	rm -f $(addprefix $(DESTDIR)$(DBUSPOLICYDIR)/,$(notdir $(wildcard dbus/*.conf)))
	rm -f $(addprefix $(DESTDIR)$(DBUSSERVICEDIR)/,$(notdir $(wildcard dbus/*.service)))
	rm -f $(addprefix $(DESTDIR)$(DBUSINTERFACEDIR)/,$(notdir $(wildcard dbus/*.xml)))
	rm -f $(addprefix $(DESTDIR)$(POLKITACTIONDIR)/,$(notdir $(wildcard dbus/*.policy)))
	rm -f $(addprefix $(DESTDIR)$(SYSTEMDUNITDIR)/,$(notdir $(wildcard systemd/*.service systemd/*.socket)))
	rm -f $(addprefix $(DESTDIR)$(NMCONFDIR)/,$(notdir $(wildcard packaging/NetworkManager/*.conf)))
	rm -f $(addprefix $(DESTDIR)$(SYSTEMDNETWORKDIR)/,$(notdir $(wildcard packaging/systemd-networkd/*)))
	rm -f $(DESTDIR)$(FIREWALLDDIR)/zones/vmfabric.xml $(DESTDIR)$(FIREWALLDDIR)/policies/vmfabric-in.xml
	rm -f $(DESTDIR)$(BASHCOMPLETIONDIR)/vmfabric $(DESTDIR)$(ZSHCOMPLETIONDIR)/_vmfabric $(DESTDIR)$(FISHCOMPLETIONDIR)/vmfabric.fish
	rm -f $(addprefix $(DESTDIR)$(DOCDIR)/,$(GUIDES))
	rm -f $(foreach f,$(MANPAGES),$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(f)))/$(notdir $(f)).gz)

fmt: ## format the source
	$(CARGO) fmt

lint: check

clean: ## remove what was built
	$(CARGO) clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

rust-deps:
	$(call say,packages for the build)
	@$(RIG)/install-deps build

root:
	@[ "$$(id -u)" = 0 ] || { \
	  echo "make $(MAKECMDGOALS): needs root: it makes network namespaces and runs libvirt and guests in them." >&2; \
	  echo "These tests need it: $$(grep -ls 'needs root' tests/*.rs tests/*/*.rs src/*/*.rs src/*/*/*.rs | tr '\n' ' ')" >&2; \
	  echo "\`make test-unit\` runs the others; \`make\` builds." >&2; exit 1; }
