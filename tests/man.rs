//! The manual pages that are made from the code: `VMFABRIC_UPDATE=1 cargo test --test man` writes them anew.

use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use roxmltree::{Document, Node};
use std::{fmt::Write, fs, path::PathBuf};

/// Of the last change that people should notice.
const DATE: &str = "2026-11-23";

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a page with what it should be, or writes it.
fn current(page: &str, text: &str) {
    let path = package().join("docs/man").join(page);
    if std::env::var_os("VMFABRIC_UPDATE").is_some() {
        fs::write(&path, text).expect("written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/man/{page} is out of date; VMFABRIC_UPDATE=1 cargo test --test man writes it");
}

fn section(man: &Man, render: impl Fn(&Man, &mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut bytes = Vec::new();
    render(man, &mut bytes).expect("written to memory");
    String::from_utf8(bytes).expect("UTF-8")
}

/// The options of a command, without the heading.
fn options(command: &Command) -> String {
    let man = Man::new(command.clone());
    let text = section(&man, |man, to| man.render_options_section(to));
    let heads = |line: &&str| [".SH", ".ie ", ".el ", ".sp", ".br"].iter().any(|head| line.starts_with(head));
    text.lines().filter(|line| !heads(line)).fold(String::new(), |text, line| text + line + "\n")
}

fn commands(parent: &str, command: &Command, to: &mut String) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let name = format!("{parent} {}", sub.get_name());
        if sub.has_subcommands() {
            commands(&name, sub, to);
            continue;
        }
        // What is global stands above.
        let sub = sub
            .clone()
            .mut_args(|arg| if ["json", "help"].contains(&arg.get_id().as_str()) { arg.hide(true) } else { arg });
        let sub = sub.bin_name(&name);
        let usage = sub.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").replace("\n       ", " ");
        let mut roff = Roff::new();
        roff.control("SS", [name.as_str()]);
        roff.text([bold(usage.as_str())]);
        roff.control("PP", []);
        let about = sub.get_long_about().or(sub.get_about()).map(ToString::to_string).unwrap_or_default();
        for line in about.lines() {
            roff.text([roman(line)]);
        }
        let aliases: Vec<_> = sub.get_visible_aliases().collect();
        if !aliases.is_empty() {
            roff.text([roman(format!("Short: {}.", aliases.join(", ")))]);
        }
        let mut bytes = Vec::new();
        roff.to_writer(&mut bytes).expect("written to memory");
        let text = String::from_utf8(bytes).expect("UTF-8");
        to.extend(text.lines().filter(|l| !l.starts_with(".ie ") && !l.starts_with(".el ")).map(|l| format!("{l}\n")));
        to.push_str(&options(&sub));
    }
}

const BESIDE: &str = r#".SH JSON
With \fB\-\-json\fR each command prints one document, \fBwatch\fR one a line. The form only grows within a major version:
what is absent is \fBnull\fR, a list is an array, keys keep their meaning. Numbers are in the units that the tables show:
bytes, seconds, 1,000 bits per second; times are seconds since 1970.
.TP
\fBstatus\fR
\fBversion\fR, \fBhealth\fR, \fBproblems\fR, \fBlibvirt\fR (\fBstatus\fR, \fBdetail\fR), \fBcapabilities\fR (each true
where the kernel has it: \fBbridge_conntrack\fR, \fBbridge_vlan_filtering\fR, \fBnft_bridge_meta\fR, \fBnft_owner\fR),
and how many there are: \fBnetworks\fR, \fBsubnets\fR, \fBports\fR, \fBattached_ports\fR, \fBleases\fR.
.TP
\fBnetwork\fR
\fBid\fR, \fBname\fR, \fBsegment\fR, \fBphysical_network\fR, \fBvlan\fR, \fBbridge\fR, \fBmtu\fR, \fBdns_domain\fR,
\fBdns_records\fR (how many), \fBdns_forwarders\fR, \fBdns_shared_with\fR, \fBdns_forward_unknown\fR,
\fBdhcp_options\fR, \fBdhcp_boot\fR, \fBsubnets\fR (of \fBid\fR, \fBname\fR, \fBcidr\fR), \fBports\fR (how many),
\fBport_security\fR, \fBsecurity_groups\fR (of \fBid\fR, \fBname\fR), \fBisolated\fR, \fBstatus\fR, \fBproblems\fR.
.TP
\fBsubnet\fR
\fBid\fR, \fBname\fR, \fBnetwork\fR, \fBnetwork_id\fR, \fBcidr\fR, \fBgateway\fR, \fBhost_address\fR, \fBpools\fR,
\fBdhcp\fR, \fBdns_servers\fR, \fBhost_routes\fR, \fBforward\fR, \fBlease_seconds\fR, \fBdhcp_options\fR,
\fBdhcp_boot\fR, \fBdhcp_relays\fR, \fBipv6_mode\fR, \fBpd_block\fR, \fBpd_length\fR, \fBntp_servers\fR,
\fBdhcp_pool_full\fR, \fBstatus\fR, \fBproblems\fR.
.TP
\fBport\fR
\fBid\fR, \fBname\fR, \fBnetwork\fR, \fBnetwork_id\fR, \fBmac\fR, \fBaddresses\fR, \fBtrunk_vlans\fR,
\fBtrunk_only_tagged\fR, \fBdns_name\fR, \fBdhcp_options\fR, \fBdhcp_boot\fR, \fBdhcp_client_id\fR, \fBdevice\fR,
\fBdevice_name\fR, \fBorigin\fR, \fBstatus\fR, \fBtap\fR, \fBdomain\fR (a UUID), \fBport_security\fR, \fBisolated\fR,
\fBsecurity_groups\fR, \fBeffective_security_groups\fR, \fBfiltered\fR, \fBinherited\fR (what it has of its network),
\fBallowed_address_pairs\fR, \fBegress_kbps\fR, \fBegress_burst_kb\fR, \fBingress_kbps\fR, \fBingress_burst_kb\fR,
\fBdscp\fR, \fBproblems\fR; \fBshow\fR of a port in use adds \fBstatistics\fR (\fBsent_bytes\fR, \fBsent_packets\fR,
\fBreceived_bytes\fR, \fBreceived_packets\fR, \fBunread_packets\fR, and packets by reason in \fBdrops\fR).
.TP
\fBsecurity\-group\fR
\fBid\fR, \fBname\fR, \fBdescription\fR, \fBstateful\fR, \fBrules\fR, \fBnetworks\fR, \fBports\fR (how many). A rule
has \fBid\fR, \fBdirection\fR, \fBethertype\fR, \fBprotocol\fR, \fBport_range_min\fR, \fBport_range_max\fR,
\fBicmp_type\fR, \fBicmp_code\fR, \fBremote_ip_prefix\fR, \fBremote_group\fR, \fBremote_address_group\fR,
\fBremote_host\fR, \fBdescription\fR, and \fBrule\fR, which says it in one line.
.TP
\fBaddress\-group\fR
\fBid\fR, \fBname\fR, \fBdescription\fR, \fBaddresses\fR, \fBsecurity_groups\fR.
.TP
\fBrecord\fR
\fBnetwork\fR, \fBfqdn\fR, \fBname\fR, \fBttl\fR, \fBtype\fR, \fBdata\fR.
.TP
\fBlease\fR
\fBnetwork\fR, \fBnetwork_id\fR, \fBaddress\fR, \fBprefix_length\fR (of a delegated prefix), \fBmac\fR, \fBclient\fR,
\fBiaid\fR, \fBhost_name\fR, \fBport\fR, \fBexpires\fR.
.TP
\fBplan\fR
\fBchanges\fR.
.TP
\fBapply\fR
\fBapplied\fR, \fBchanges\fR (\fBaction\fR: create, update or delete; \fBkind\fR; \fBname\fR; \fBfields\fR of
\fBfield\fR, \fBold\fR, \fBnew\fR), \fBkept\fR, \fBhost_changes\fR.
.TP
\fBimport\-libvirt\fR
\fBdry_run\fR, \fBnetworks\fR (\fBnetwork\fR, \fBimported\fR, \fBsteps\fR, \fBleft_out\fR).
.TP
\fBexplain\fR
\fBport\fR, \fBname\fR, \fBnetwork\fR, \fBmacs\fR, \fBaddresses\fR, \fBport_security\fR, \fBisolated\fR, \fBgroups\fR,
\fBstateful\fR, \fBsends\fR and \fBreceives\fR (of \fBwhat\fR, \fBgroup\fR, \fBrule\fR), \fBproblems\fR, \fBdrops\fR.
.TP
\fBtrace\fR
\fBpacket\fR, \fBsteps\fR, \fBallowed\fR, \fBreason\fR, \fBport\fR (both of what stops it).
.TP
\fBtopology\fR
\fBhost\fR, \fBphysical_networks\fR (\fBname\fR, \fBbridge\fR, \fBnetworks\fR), \fBlocal_networks\fR; a
network has \fBports\fR of \fBname\fR, \fBguest\fR, \fBmac\fR, \fBaddresses\fR, \fBtrunk_vlans\fR, \fBtap\fR,
\fBstatus\fR.
.TP
\fBdoctor\fR
\fBok\fR, \fBdaemon_running\fR, \fBchecks\fR (\fBcheck\fR; \fBstate\fR: ok, skipped, warning or error; \fBfindings\fR
of \fBwhat\fR and \fBmend\fR).
.TP
\fBlog\-level\fR
\fBlevel\fR.
.TP
\fBlogs\fR
journald's own fields, a line for each entry.
.TP
\fBwatch\fR
a line for each: \fBtime\fR, \fBevent\fR, \fBkind\fR, \fBid\fR, \fBname\fR, \fBproperties\fR (those that changed, by
the names above).
.SH DOCUMENTS
\fBapply\fR and \fBexport\fR speak of \fBaddress_groups\fR, \fBsecurity_groups\fR, \fBnetworks\fR, \fBsubnets\fR and
\fBports\fR, lists of resources with the keys that the Create methods of \fBorg.vmfabric1\fR(5) take:
.PP
.nf
.RS
[[networks]]
name = "lab"

[[subnets]]
network = "lab"
cidr = "10.7.0.0/24"
forward = "nat"

[[ports]]
name = "db"
network = "lab"
mac = "52:54:00:ab:cd:02"
addresses = ["10.7.0.50"]
.RE
.fi
.PP
A resource is known by its name, a port without one by its network and MAC address, a subnet without one by its network's name.
What a resource does not say has its default; a port's MAC address and addresses stay as they are. What the document does
not name stays, unless \fB\-\-prune\fR is given.
.SH ENVIRONMENT
.TP
\fBNO_COLOR\fR
No colours, on a terminal too.
.TP
\fBDBUS_SYSTEM_BUS_ADDRESS\fR
The bus, where it is not the system's.
.TP
\fBLIBVIRT_DEFAULT_URI\fR
Where guests are looked up by name.
.SH EXIT STATUS
"#;

const END: &str = r#".SH SEE ALSO
\fBvmfabricd\fR(8), \fBvmfabricd.toml\fR(5), \fBorg.vmfabric1\fR(5), \fBvirsh\fR(1)
"#;

#[test]
fn the_page_of_the_command_line_is_current() {
    let mut command = vmfabric::cli::Arguments::command();
    let status = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    command = command.after_help("").after_long_help("").disable_help_subcommand(true);
    command.build();
    let man = Man::new(command.clone()).title("VMFABRIC").section("1").source("vmfabric").manual("vmfabric").date(DATE);
    let mut page = section(&man, |man, to| man.render_title(to));
    page += ".SH NAME\nvmfabric \\- networks for the virtual machines of this host\n";
    page += ".SH SYNOPSIS\n\\fBvmfabric\\fR [\\fB\\-\\-json\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]\n";
    page += ".SH DESCRIPTION\nA client of \\fBvmfabricd\\fR(8) on the system bus. Anybody may look; polkit decides who changes\n";
    page += "something.\n.SH OPTIONS\n";
    page += &options(&command);
    page += ".SH COMMANDS\n";
    commands("vmfabric", &command, &mut page);
    page += BESIDE;
    for line in status.lines().skip(1) {
        let (code, text) = line.trim().split_once("  ").expect("a code and what it means");
        let _ = writeln!(page, ".TP\n\\fB{code}\\fR\n{}", text.replace('-', "\\-"));
    }
    current("vmfabric.1", &(page + END));
}

const KINDS: [&str; 6] = ["Manager", "Network", "Subnet", "Port", "SecurityGroup", "AddressGroup"];

fn interface(kind: &str) -> String {
    let path = package().join(format!("dbus/org.vmfabric1.{kind}.xml"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn escaped(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('\\', "\\e").replace('-', "\\-");
    let words = words.replace('\'', "\\(aq");
    if words.starts_with('.') { format!("\\&{words}") } else { words }
}

fn members(interface: Node<'_, '_>, page: &mut String) {
    let mut comment = String::new();
    for node in interface.children() {
        if node.is_comment() {
            comment = escaped(node.text().unwrap_or_default());
        }
        if !node.is_element() {
            continue;
        }
        let name = node.attribute("name").unwrap_or_default();
        let arguments = |direction: &str| {
            let all = node.children().filter(|n| n.has_tag_name("arg") && n.attribute("direction") == Some(direction));
            let one = |n: Node<'_, '_>| {
                format!("{} {}", n.attribute("type").unwrap_or_default(), n.attribute("name").unwrap_or_default())
            };
            all.map(one).collect::<Vec<_>>().join(", ")
        };
        let head = match node.tag_name().name() {
            "method" => match arguments("out").as_str() {
                "" => format!("\\fB{name}\\fR({})", arguments("in")),
                out => format!("\\fB{name}\\fR({}) \\(-> {out}", arguments("in")),
            },
            "property" => format!("\\fB{name}\\fR: {}", node.attribute("type").unwrap_or_default()),
            _ => continue,
        };
        let _ = writeln!(page, ".TP\n{head}");
        page.push_str(if comment.is_empty() { "\\&" } else { &comment });
        page.push('\n');
        comment.clear();
    }
}

#[test]
fn the_page_of_the_bus_is_current_and_names_every_member() {
    let mut page = String::from(
        ".\\\" Made from dbus/*.xml by tests/man.rs.\n.TH ORG.VMFABRIC1 5 2026-11-23 vmfabric vmfabric\n.SH NAME\n\
         org.vmfabric1 \\- the D\\-Bus interface of vmfabricd\n.SH DESCRIPTION\n\
         On the system bus \\fBvmfabricd\\fR(8) has the name \\fBorg.vmfabric1\\fR: a Manager at \\fB/org/vmfabric1\\fR, which is\n\
         an ObjectManager too, and an object for each network, subnet, port, security group and address group. Anybody may\n\
         read; who changes something is asked for a polkit action: \\fBorg.vmfabric1.create\\-\\fR, \\fBchange\\-\\fR or\n\
         \\fBdelete\\-\\fR with \\fBnetworks\\fR, \\fBsubnets\\fR, \\fBports\\fR, \\fBsecurity\\-groups\\fR or\n\
         \\fBaddress\\-groups\\fR, \\fBapply\\fR, \\fBimport\\-networks\\fR and \\fBset\\-log\\-level\\fR.\n\
         Dictionaries with unknown keys are refused. Errors are \\fBorg.vmfabric1.Error.\\fR: \\fBNotFound\\fR,\n\
         \\fBInvalidArgument\\fR, \\fBConflict\\fR, \\fBAddressExhausted\\fR, \\fBInUse\\fR, \\fBNotAuthorized\\fR, \\fBBusy\\fR,\n\
         \\fBStoreFailed\\fR and \\fBFailed\\fR; their texts say what to do.\n",
    );
    let mut names = Vec::new();
    for kind in KINDS {
        let text = interface(kind);
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let document = Document::parse_with_options(&text, options).expect("XML");
        let interface = document.descendants().find(|node| node.has_tag_name("interface")).expect("an interface");
        let _ = writeln!(page, ".SH ORG.VMFABRIC1.{}", kind.to_ascii_uppercase());
        members(interface, &mut page);
        let members = interface.children().filter(Node::is_element).filter_map(|node| node.attribute("name"));
        names.extend(members.map(str::to_owned));
    }
    page += ".SH EXAMPLES\n.nf\nbusctl call org.vmfabric1 /org/vmfabric1 org.vmfabric1.Manager CreateNetwork \\(aqa{sv}\\(aq 1 name s lab\n\
             busctl tree org.vmfabric1\n.fi\n.SH SEE ALSO\n\\fBvmfabricd\\fR(8), \\fBvmfabric\\fR(1), \\fBbusctl\\fR(1)\n";
    for name in &names {
        assert!(page.contains(&format!("\\fB{name}\\fR")), "{name}");
    }
    assert!(names.len() > 100, "{}", names.len());
    current("org.vmfabric1.5", &page);
}

/// Every key of the configuration file has its place in the page, and the page none that is not.
#[test]
fn the_page_of_the_configuration_has_every_key() {
    let sample = fs::read_to_string(package().join("packaging/vmfabricd.toml")).expect("the default configuration");
    let page = fs::read_to_string(package().join("docs/man/vmfabricd.toml.5")).expect("docs/man/vmfabricd.toml.5");
    for line in sample.lines().map(|line| line.trim_start_matches(['#', ' '])) {
        if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            assert!(page.contains(&format!("\\fB{key}\\fR")), "{key}");
        }
    }
}

#[test]
fn completions_are_current() {
    for (shell, file, tail) in [
        ("bash", "vmfabric.bash", ""),
        // zsh runs the file for the first completion, which is not to be lost.
        ("zsh", "_vmfabric", "[[ $funcstack[1] == _vmfabric ]] && _clap_dynamic_completer_vmfabric \"$@\"\n"),
        ("fish", "vmfabric.fish", ""),
    ] {
        let made = std::process::Command::new(env!("CARGO_BIN_EXE_vmfabric")).env("COMPLETE", shell).output();
        let made = String::from_utf8(made.expect("vmfabric runs").stdout).expect("UTF-8") + tail;
        let path = package().join("packaging/completions").join(file);
        if std::env::var_os("VMFABRIC_UPDATE").is_some() {
            fs::write(&path, &made).expect("written");
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap_or_default(),
            made,
            "{file} is out of date; VMFABRIC_UPDATE=1 writes it"
        );
    }
}
