use super::*;
use proptest::prelude::*;

const UUID: &str = "7c1f3f0e-5df4-4b3c-9d6b-1f9e9c1d2a3b";

/// As `virsh dumpxml` shows a running guest (libvirt 9.0), shortened where networking has no part in it.
const LIVE: &str = r#"<domain type='qemu' id='7'>
  <name>web</name>
  <uuid>7c1f3f0e-5df4-4b3c-9d6b-1f9e9c1d2a3b</uuid>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
    <vmfabric:domain xmlns:vmfabric="https://vmfabric.org/xmlns/domain/1.0">
      <vmfabric:interface mac='52:54:00:AA:00:02' network='blue' port='web-0'/>
      <vmfabric:interface mac='52:54:00:aa:00:03' trunk='10,20-22' native='5' colour='red'/>
      <vmfabric:interface mac='52:54:00:aa:00:99' network='blue'/>
    </vmfabric:domain>
  </metadata>
  <memory unit='KiB'>65536</memory>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <interface type='bridge'>
      <mac address='52:54:00:aa:00:01'/>
      <source network='prod' portid='5d744f21-ba4a-4d6e-bdb2-30a35ff3207d' bridge='vmf-prod'/>
      <target dev='vnet3'/>
      <model type='virtio'/>
      <alias name='net0'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x03' function='0x0'/>
    </interface>
    <interface type='ethernet'>
      <mac address='52:54:00:aa:00:02'/>
      <target dev='tap-web'/>
      <port isolated='yes'/>
      <link state='down'/>
      <alias name='net1'/>
    </interface>
    <interface type='bridge'>
      <mac address='52:54:00:aa:00:03'/>
      <source bridge='br0'/>
      <vlan trunk='yes'><tag id='42'/><tag id='7' nativeMode='untagged'/></vlan>
      <target dev='vnet4'/>
      <alias name='net2'/>
    </interface>
    <interface type='direct'>
      <mac address='52:54:00:aa:00:04'/>
      <source dev='eth0' mode='vepa'/>
      <vlan><tag id='4095'/></vlan>
      <target dev='macvtap0'/>
    </interface>
  </devices>
</domain>"#;

fn vlan(id: u16) -> VlanId {
    VlanId::new(id).expect("in range")
}

fn domain_with(metadata: &str, devices: &str) -> Result<Domain, XmlError> {
    parse_domain(&format!(
        "<domain type='kvm'><name>web</name><uuid>{UUID}</uuid><metadata>\
         <v:domain xmlns:v='{METADATA_NS}'>{metadata}</v:domain></metadata><devices>{devices}</devices></domain>"
    ))
}

fn message(result: Result<Domain, XmlError>) -> String {
    result.expect_err("is refused").to_string()
}

#[test]
fn live_domain() {
    let domain = parse_domain(LIVE).expect("parses");
    assert_eq!((domain.name.as_str(), domain.uuid.to_string().as_str(), domain.id), ("web", UUID, Some(7)));
    let [prod, blue, trunk, other] = domain.nics.as_slice() else { panic!("{:?}", domain.nics) };

    assert_eq!(
        prod.source,
        NicSource::Network {
            name: "prod".into(),
            bridge: Some("vmf-prod".parse().expect("name")),
            portid: Some("5d744f21-ba4a-4d6e-bdb2-30a35ff3207d".parse().expect("uuid")),
            portgroup: None
        }
    );
    assert_eq!(prod.tap.as_ref().map(IfName::as_str), Some("vnet3"));
    assert_eq!(prod.alias.as_deref(), Some("net0"));
    assert!(prod.link_up && !prod.isolated && prod.wish.is_none() && prod.vlan.is_none());

    assert_eq!(blue.source, NicSource::Ethernet);
    assert!(!blue.link_up && blue.isolated);
    let wish = blue.wish.as_ref().expect("metadata matches by MAC, whatever its case");
    assert_eq!((wish.network.as_deref(), wish.port.as_deref()), (Some("blue"), Some("web-0")));

    assert_eq!(trunk.source, NicSource::Bridge { name: "br0".parse().expect("name") });
    let expected = NicVlan { trunk: true, tags: vec![vlan(7), vlan(42)], native: Some(vlan(7)), native_tagged: false };
    assert_eq!(trunk.vlan, Some(expected));
    let tags = [5, 10, 20, 21, 22].map(vlan).to_vec();
    let expected = NicVlan { trunk: true, tags, native: Some(vlan(5)), native_tagged: false };
    assert_eq!(trunk.wish.as_ref().and_then(|wish| wish.vlan.clone()), Some(expected));

    assert_eq!((&other.source, &other.tap, &other.vlan), (&NicSource::Other, &None, &None));
    assert_eq!(
        domain.warnings,
        [
            "vmfabric metadata of NIC 52:54:00:aa:00:03: colour is not known and was passed over",
            "vmfabric metadata: no NIC has the MAC address 52:54:00:aa:00:99",
        ]
    );
}

#[test]
fn inactive_domain() {
    let domain = domain_with(
        "",
        "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='prod' portgroup='dmz'/>\
         <vlan><tag id='10'/></vlan></interface>",
    )
    .expect("parses");
    assert_eq!(domain.id, None);
    let nic = &domain.nics[0];
    let source = NicSource::Network { name: "prod".into(), bridge: None, portid: None, portgroup: Some("dmz".into()) };
    assert_eq!((&nic.source, &nic.tap), (&source, &None));
    let access = NicVlan { trunk: false, tags: vec![vlan(10)], native: None, native_tagged: false };
    assert_eq!(nic.vlan, Some(access));
    assert!(
        parse_domain(&format!("<domain><name>x</name><uuid>{UUID}</uuid></domain>")).expect("parses").nics.is_empty()
    );
}

#[test]
fn errors_name_domain_and_nic_and_say_what_to_write() {
    let nic =
        |inner: &str| domain_with("", &format!("<interface type='bridge'><source bridge='b'/>{inner}</interface>"));
    assert_eq!(
        message(nic("")),
        "domain 'web', interface number 1: it has no MAC address; write <mac address='52:54:00:12:34:56'/>"
    );
    assert_eq!(
        message(nic("<mac address='01:00:5e:00:00:01'/>")),
        "domain 'web', interface number 1: '01:00:5e:00:00:01' is no unicast MAC address; write it as 52:54:00:12:34:56"
    );
    let vlan = |inner: &str| message(nic(&format!("<mac address='52:54:00:00:00:01'/><vlan>{inner}</vlan>")));
    assert_eq!(
        vlan("<tag id='4095'/>"),
        "domain 'web', NIC 52:54:00:00:00:01: VLAN '4095' is out of range; VLAN IDs are 1 to 4094"
    );
    assert!(vlan("").contains("has no <tag>"));
    assert!(vlan("<tag id='1' nativeMode='tagged'/><tag id='2' nativeMode='tagged'/>").contains("keep one"));

    let one = "<interface type='ethernet'><mac address='52:54:00:00:00:01'/></interface>";
    let wish = |attributes: &str| message(domain_with(&format!("<v:interface {attributes}/>"), one));
    assert!(wish("network='a'").starts_with("domain 'web', vmfabric metadata of interface number 1: mac is missing"));
    assert!(wish("mac='zz'").contains("write it as 52:54:00:12:34:56"));
    let wish = |attributes: &str| wish(&format!("mac='52:54:00:00:00:01' {attributes}"));
    assert_eq!(
        wish("network=''"),
        "domain 'web', vmfabric metadata of NIC 52:54:00:00:00:01: network='' is no name and no UUID"
    );
    assert!(wish("vlan='10' trunk='1'").contains("one or the other"));
    assert!(wish("native='1'").contains("native needs trunk"));
    assert!(wish("trunk='20-10'").contains("lower VLAN first"));
    assert!(wish("vlan='0'").contains("1 to 4094"));
    assert!(wish("port-security='no'").contains("neither 'on' nor 'off'"));
    assert!(wish("security-groups='web,,db'").contains("'', which is no name"));
    assert!(wish(&format!("security-groups='{}'", "a,".repeat(65))).contains("more than 64"));
    // What could leave a guest open is not passed over.
    for slip in ["security-group='web'", "securitygroups='web'", "group='web'", "port_security='off'"] {
        assert!(wish(slip).contains("is not known; write security-groups="), "{slip}");
    }
    let heeded = |attributes: &str| {
        let entry = format!("<v:interface mac='52:54:00:00:00:01' {attributes}/>");
        let wish = domain_with(&entry, one).expect("parses").nics.remove(0).wish.expect("a wish");
        (wish.security_groups, wish.port_security)
    };
    assert_eq!(heeded("security-groups='web, db'"), (Some(vec!["web".into(), "db".into()]), None));
    assert_eq!(heeded("security-groups='' port-security='off'"), (Some(vec![]), Some(false)));
    assert_eq!(heeded("port-security='on'"), (None, Some(true)));

    let entry = "<v:interface mac='52:54:00:00:00:01' network='a'/>";
    assert!(message(domain_with(&entry.repeat(2), one)).contains("it is there twice"));
    assert!(message(domain_with(entry, &one.repeat(2))).contains("several NICs have this MAC"));
    // Twins without metadata are libvirt's business.
    assert_eq!(domain_with("", &one.repeat(2)).expect("parses").nics.len(), 2);
}

#[test]
fn refuses_what_is_no_domain() {
    let text = |xml: &str| message(parse_domain(xml));
    assert_eq!(text("<network/>"), "<domain> was expected, not <network>");
    assert_eq!(text("<domain/>"), "<domain> has no usable <name>: it is missing");
    assert!(text("<domain><name>a</name><uuid>12</uuid></domain>").starts_with("<domain> has no usable <uuid>"));
    assert!(text("").starts_with("the XML cannot be read"));
    assert!(text(&" ".repeat(MAX_XML + 1)).contains("at most 4194304"));
}

#[test]
fn survives_hostile_xml() {
    let bomb = r#"<!DOCTYPE d [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><domain>&b;</domain>"#;
    assert!(message(parse_domain(bomb)).contains("cannot be read"));
    let file = r#"<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/passwd">]><domain><name>&a;</name></domain>"#;
    assert!(message(parse_domain(file)).contains("cannot be read"));
    assert!(parse_domain(&"<a>".repeat(1_000_000)).is_err());
    assert!(parse_domain(&format!("<domain>{}</domain>", "<a/>".repeat(500_000))).is_err());
    let nics = "<interface type='ethernet'><mac address='52:54:00:00:00:01'/></interface>".repeat(1025);
    assert!(message(domain_with("", &nics)).contains("1025 network interfaces"));
    let strangers: String = (0..100).map(|n| format!("<v:x{n}/>")).collect();
    assert_eq!(domain_with(&strangers, "").expect("parses").warnings.len(), MAX_WARNINGS);
    let ranges = vec!["1-4094"; 2_000].join(",");
    let metadata = format!("<v:interface mac='52:54:00:00:00:01' trunk='{ranges}'/>");
    assert!(message(domain_with(&metadata, "")).contains("write each once"));
    assert!(message(parse_domain(&format!("<{}/>", "x".repeat(10_000)))).len() < 300);
}

#[test]
fn network_hook() {
    let hook = parse_network_hook(&format!(
        "<hookData>\n  <network>\n    <name>prod</name>\n    <uuid>{UUID}</uuid>\n    <forward mode='bridge'/>\n\
         <bridge name='vmf-prod'/>\n  </network>\n  <networkport>\n    \
         <uuid>5d744f21-ba4a-4d6e-bdb2-30a35ff3207d</uuid>\n    <owner>\n      <uuid>{UUID}</uuid>\n      \
         <name>web</name>\n    </owner>\n    <mac address='52:54:00:aa:00:01'/>\n    \
         <plug type='bridge' bridge='vmf-prod'/>\n  </networkport>\n</hookData>"
    ))
    .expect("parses");
    assert_eq!(hook.network_name, "prod");
    let port = hook.port.expect("has a port");
    assert_eq!((port.owner_name.as_str(), port.mac.to_string().as_str()), ("web", "52:54:00:aa:00:01"));
    assert_eq!(port.bridge.as_ref().map(IfName::as_str), Some("vmf-prod"));

    let started = format!("<hookData><network><name>prod</name><uuid>{UUID}</uuid></network></hookData>");
    assert_eq!(parse_network_hook(&started).expect("parses").port, None);
    assert!(parse_network_hook("<hookData/>").is_err());
}

/// Fragments that make deep paths through the parser likely.
fn fragments() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\PC{0,12}",
        Just("<interface type='bridge'><mac address='52:54:00:aa:00:01'/>".to_owned()),
        Just("<source network='x' bridge='y' portid='z'/>".to_owned()),
        "<vlan trunk='(yes|no)'><tag id='[0-9]{1,5}' nativeMode='(tagged|x)'/></vlan>",
        "<mac address='[0-9a-f:]{0,18}'/>",
        Just("</interface>".to_owned()),
        "<v:interface mac='52:54:00:aa:00:01' trunk='[0-9,-]{0,9}' native='[0-9]'/>",
        "<v:interface mac='52:54:00:aa:00:01' security-groups='[a-z, ]{0,9}' port-security='(on|off|x)'/>",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn never_panics(text in any::<String>(), metadata in fragments(), devices in fragments()) {
        let _ = parse_domain(&text);
        let _ = parse_network_hook(&text);
        let _ = domain_with(&metadata, &devices);
    }

    #[test]
    fn never_panics_on_damage(at in 0..LIVE.len(), with in "\\PC{0,3}") {
        let damaged: String = LIVE[..at].chars().chain(with.chars()).chain(LIVE[at + 1..].chars()).collect();
        let _ = parse_domain(&damaged);
    }
}
