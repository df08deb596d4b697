//! What is shipped: the configuration file, the licences, the units, and the Debian package.

use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};
use vmfabric::daemon::Config;

const SHIPPED: &str = include_str!("../packaging/vmfabricd.toml");

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A setting that is commented out has no space after the `#`; prose has one.
fn uncommented() -> String {
    let bare = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    SHIPPED.lines().map(|line| bare(line) + "\n").collect()
}

#[test]
fn the_shipped_configuration_is_the_default() {
    assert_eq!(Config::parse(SHIPPED, "shipped").expect("valid"), Config::parse("", "").expect("valid"));
}

#[test]
fn the_shipped_configuration_shows_every_key() {
    let config = Config::parse(&uncommented(), "uncommented").expect("every example is valid");
    let default = Config::parse("", "").expect("valid");
    assert_eq!(
        (config.libvirt_uri, config.upstream_dns, config.log_level, config.host.egress),
        (default.libvirt_uri, default.upstream_dns, default.log_level, default.host.egress),
        "what is commented out outside the examples is the default"
    );
    assert_eq!(config.host.physical_networks.len(), 2);
    // An unknown key is refused with the list of those that are known.
    for (section, example) in [
        ("libvirt", ""),
        ("dns", ""),
        ("dhcp", ""),
        ("filter", ""),
        ("log", ""),
        ("forwarding", ""),
        ("physical_networks.lan", "interface = \"eth0\"\n"),
    ] {
        let wrong = format!("[{section}]\n{example}no_such_key = 1\n");
        let error = Config::parse(&wrong, "wrong").expect_err("an unknown key").to_string();
        let known: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(!known.is_empty(), "{error}");
        for key in known {
            let shown = [format!("#{key} = "), format!("[{section}.{key}]")];
            assert!(shown.iter().any(|shown| SHIPPED.contains(shown)), "[{section}] {key} is not in vmfabricd.toml");
        }
    }
}

/// Some alternative of an SPDX expression, all of whose terms are allowed. Knows what occurs: `A OR B`, `A/B`,
/// `A AND B`, `(A OR B) AND C`.
fn is_allowed(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let licence = licence.trim();
    if allowed.contains(licence) {
        return true;
    }
    if let Some((group, rest)) = licence.strip_prefix('(').and_then(|rest| rest.split_once(") AND ")) {
        return is_allowed(group, allowed) && is_allowed(rest, allowed);
    }
    let alternatives = licence.split(" OR ").flat_map(|part| part.split('/'));
    let all = |terms: &str| terms.split(" AND ").all(|term| allowed.contains(term.trim_matches([' ', '(', ')'])));
    alternatives.into_iter().any(all)
}

#[test]
fn licences_are_those_of_deny_toml() {
    let text = std::fs::read_to_string(repository().join("deny.toml")).expect("deny.toml");
    let deny: toml::Table = text.parse().expect("deny.toml is TOML");
    let words = |value: &toml::Value| -> BTreeSet<String> {
        value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let allowed = words(&deny["licenses"]["allow"]);
    let exceptions = deny["licenses"]["exceptions"].as_array().expect("exceptions");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", &target])
        .current_dir(repository())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 100, "only {} packages", packages.len());
    for package in packages {
        let (name, licence) = (package["name"].as_str(), package["license"].as_str().unwrap_or("none"));
        let exception = exceptions.iter().find(|exception| exception["crate"].as_str() == name);
        let mut allowed = allowed.clone();
        allowed.extend(exception.into_iter().flat_map(|exception| words(&exception["allow"])));
        assert!(is_allowed(licence, &allowed), "{} is {licence}, which deny.toml does not allow", package["name"]);
    }
}

/// A package of the binaries under test, made by `packaging/TOOL`.
fn packed(tool: &str, folder: &Path) -> PathBuf {
    let binaries = Path::new(env!("CARGO_BIN_EXE_vmfabricd")).parent().expect("a folder");
    let mut build = Command::new(repository().join("packaging").join(tool));
    build.arg(folder).env("BIN_DIR", binaries).env("DEB_COMPRESSION", "none").current_dir(repository());
    String::from_utf8(ran(&mut build)).expect("a path").trim().into()
}

/// The same, after it came out alike twice.
fn packed_alike(tool: &str, folder: &Path) -> PathBuf {
    let again = tempfile::tempdir().expect("a folder");
    let (one, two) = (packed(tool, folder), packed(tool, again.path()));
    let bytes = |path: &Path| std::fs::read(path).expect("a package");
    assert!(bytes(&one) == bytes(&two), "{tool}: two packages of the same binaries differ");
    one
}

/// What a command that succeeds prints.
fn ran(command: &mut Command) -> Vec<u8> {
    let output = command.current_dir(repository()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}

fn told(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(ran(Command::new(program).args(arguments))).expect("text")
}

fn on_a_private_host(script: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("tests/rig/private-host")
        .args(["-t", "600", "-f", script])
        .arg(packed("build-deb", folder.path()))
        .current_dir(repository())
        .output()
        .expect("tests/rig/private-host");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{out}\n{err}", output.status);
    println!("{out}");
}

#[test]
#[ignore = "needs root: installs the package on a private host"]
fn the_package_installs_upgrades_and_leaves_nothing() {
    on_a_private_host("tests/package/life.sh");
}

#[test]
#[ignore = "needs root: installs the package on a private host"]
fn systemd_takes_the_units() {
    on_a_private_host("tests/package/units.sh");
}

#[test]
#[ignore = "needs root: installs the package on a private host"]
fn the_daemon_works_with_what_its_unit_leaves_it() {
    on_a_private_host("tests/package/confined.sh");
}

/// The files of the Debian package, by what other systems call their folders.
fn are_there(files: &str, sbin: &str) {
    for file in [
        &format!("{sbin}/vmfabricd"),
        &format!("{sbin}/vmfabric-hook"),
        "usr/bin/vmfabric",
        "usr/lib/systemd/system/vmfabricd.service",
        "usr/lib/systemd/system/vmfabric-hook.socket",
        "usr/share/dbus-1/system.d/org.vmfabric1.conf",
        "usr/share/polkit-1/actions/org.vmfabric1.policy",
        "etc/libvirt/hooks/qemu.d/vmfabric",
        "etc/libvirt/hooks/network.d/vmfabric",
        "etc/vmfabric/vmfabricd.toml",
        "usr/share/man/man8/vmfabricd.8.gz",
        "usr/share/man/man8/vmfabric-hook.8.gz",
        "usr/share/doc/vmfabric/sbom.spdx.json",
        "usr/share/doc/vmfabric/README.md",
        "usr/share/doc/vmfabric/docs/vlans.md",
        "usr/share/doc/vmfabric/docs/neutron-to-vmfabric",
    ] {
        assert!(files.lines().any(|line| line.trim_start_matches('/') == file), "no {file} in\n{files}");
    }
}

#[test]
#[ignore = "needs root: `make test` installs dpkg-dev for it"]
fn the_package_is_reproducible() {
    packed_alike("build-deb", tempfile::tempdir().expect("a folder").path());
}

#[test]
#[ignore = "needs root: `make test` installs lintian for it"]
fn the_package_is_lint_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let deb = packed("build-deb", folder.path());
    // Here nothing is compressed, to be quick; `make deb` does.
    let here = "--suppress-tags=uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball";
    told("lintian", &["--allow-root", "--fail-on=error,warning", here, deb.to_str().expect("a path")]);
}

#[test]
#[ignore = "needs root: `make test` installs rpm and rpmlint for it"]
fn the_rpm_is_whole_reproducible_and_lint_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let rpm = packed_alike("build-rpm", folder.path());
    let rpm = rpm.to_str().expect("a path");
    are_there(&told("rpm", &["-qlp", rpm]), "usr/sbin");
    told("rpmlint", &["-c", "packaging/rpm/rpmlint.toml", "packaging/rpm/vmfabric.spec", rpm]);
    let needs = told("rpm", &["-qp", "--requires", rpm]);
    assert!(needs.contains("libvirt.so.0") && needs.contains("libnftables.so.1"), "{needs}");
}

#[test]
#[ignore = "needs root: `make test` installs makepkg for it, which runs as nobody"]
fn the_arch_package_is_whole_and_reproducible() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = packed_alike("build-arch", folder.path());
    let package = package.to_str().expect("a path");
    are_there(&told("bsdtar", &["-tf", package]), "usr/bin");
    let unit = told("bsdtar", &["-xO", "--include=*/vmfabricd.service", "-f", package]);
    assert!(unit.contains("/usr/bin/vmfabricd") && !unit.contains("/usr/sbin/vmfabric"), "{unit}");
    // As namcap would look: what the programs load comes with a package that this one depends on.
    let info = told("bsdtar", &["-xO", "-f", package, ".PKGINFO"]);
    let depends: BTreeSet<&str> = info.lines().filter_map(|line| line.strip_prefix("depend = ")).collect();
    for library in loaded_libraries() {
        let owner = package_of_arch(&library);
        assert!(depends.contains(owner), "PKGBUILD does not name {owner}, which has {library}: {depends:?}");
    }
}

/// What the dynamic loader is asked for by any of the programs.
fn loaded_libraries() -> BTreeSet<String> {
    let programs =
        [env!("CARGO_BIN_EXE_vmfabricd"), env!("CARGO_BIN_EXE_vmfabric"), env!("CARGO_BIN_EXE_vmfabric-hook")];
    let headers = told("readelf", &[&["--dynamic"], &programs[..]].concat());
    let needed = headers.lines().filter(|line| line.contains("(NEEDED)"));
    let libraries: BTreeSet<String> =
        needed.filter_map(|line| line.split(['[', ']']).nth(1)).map(str::to_owned).collect();
    assert!(libraries.contains("libc.so.6"), "{headers}");
    libraries
}

fn package_of_arch(library: &str) -> &'static str {
    match library.split('.').next() {
        Some("libvirt") => "libvirt",
        Some("libnftables") => "nftables",
        Some("libgcc_s") => "gcc-libs",
        Some("libc" | "libm" | "ld-linux-x86-64" | "ld-linux-aarch64") => "glibc",
        _ => panic!("{library} is loaded: of which package of Arch's is it?"),
    }
}

#[test]
#[ignore = "needs root: `make test` installs shellcheck for it"]
fn scripts_that_are_shipped_are_lint_clean() {
    let scripts = [
        "--severity=warning",
        "packaging/hooks/qemu",
        "packaging/hooks/network",
        "packaging/debian/postinst",
        "packaging/debian/prerm",
        "packaging/debian/postrm",
        "packaging/build-deb",
        "packaging/build-rpm",
        "packaging/build-arch",
        "packaging/third-party-notices",
    ];
    told("shellcheck", &scripts);
    // What PKGBUILD sets makepkg reads, and the other way round.
    let arch = ["--severity=warning", "--shell=bash", "--exclude=SC2034,SC2154,SC2164"];
    told("shellcheck", &[&arch[..], &["packaging/arch/PKGBUILD", "packaging/arch/vmfabric.install"]].concat());
}

#[test]
#[ignore = "needs root: `make test` installs python3 for it"]
fn the_sbom_names_what_the_programs_contain() {
    let sbom: Value = serde_json::from_str(&told("packaging/sbom", &[])).expect("JSON");
    assert_eq!(sbom["spdxVersion"], "SPDX-2.3");
    let packages = sbom["packages"].as_array().expect("packages");
    let named = |package: &Value| {
        format!(
            "{} v{}",
            package["name"].as_str().unwrap_or_default(),
            package["versionInfo"].as_str().unwrap_or_default()
        )
    };
    let listed: BTreeSet<String> = packages.iter().map(named).collect();
    let arguments = ["tree", "--locked", "--offline", "--edges=normal,no-proc-macro", "--prefix=none", "--format={p}"];
    let tree = told(env!("CARGO"), &arguments);
    let linked: BTreeSet<String> = tree
        .lines()
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .filter(|l| !l.is_empty())
        .collect();
    assert_eq!(listed, linked);
    let ids: BTreeSet<&str> = packages.iter().filter_map(|package| package["SPDXID"].as_str()).collect();
    assert_eq!(ids.len(), packages.len(), "two packages have one id");
    for relation in sbom["relationships"].as_array().expect("relationships") {
        let known = |end: &str| end == "SPDXRef-DOCUMENT" || ids.contains(end);
        assert!(
            ["spdxElementId", "relatedSpdxElement"].iter().all(|end| known(relation[end].as_str().unwrap_or_default()))
        );
    }
    let ours = |package: &&Value| package["name"] != "vmfabric";
    for package in packages.iter().filter(ours) {
        assert!(package["checksums"][0]["checksumValue"].as_str().is_some_and(|sum| sum.len() == 64), "{package}");
    }
}
