use super::*;
use proptest::prelude::*;

/// Every element of formatnetwork.html that a network with a bridge of libvirt's can have.
const WHOLE: &str = r#"<network ipv6='yes' xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
  <name>lab</name>
  <uuid>81ff0d90-c91e-6742-64da-4a736edb9a9b</uuid>
  <title>The lab</title>
  <forward mode='nat' dev='eth7'>
    <nat><address start='192.0.2.1' end='192.0.2.9'/><port start='1024' end='65535'/></nat>
    <interface dev='eth7'/>
  </forward>
  <bridge name='virbr9' stp='on' delay='0' zone='lab'/>
  <mtu size='1400'/>
  <mac address='52:54:00:1c:da:2f'/>
  <domain name='lab.example' localOnly='yes'/>
  <bandwidth><inbound average='1000'/></bandwidth>
  <port isolated='yes'/>
  <dns forwardPlainNames='no'>
    <forwarder addr='192.0.2.53'/>
    <forwarder domain='corp.example' addr='192.0.2.54' port='5353'/>
    <forwarder domain='local.example'/>
    <txt name='note' value='some text'/>
    <txt name='elsewhere.example' value='x'/>
    <host ip='192.168.9.2'><hostname>www</hostname><hostname>db.lab.example</hostname></host>
    <srv service='ldap' protocol='tcp' target='db' port='389' priority='1' weight='2'/>
    <srv service='sip' protocol='udp' domain='lab.example' target='pbx.example' port='5060'/>
  </dns>
  <ip address='192.168.9.1' netmask='255.255.255.0' localPtr='yes'>
    <tftp root='/srv/tftp'/>
    <dhcp>
      <range start='192.168.9.1' end='192.168.9.99'><lease expiry='2' unit='hours'/></range>
      <range start='192.168.9.150' end='192.168.9.200'/>
      <range start='10.0.0.1' end='10.0.0.9'/>
      <host mac='52:54:00:00:00:01' name='web' ip='192.168.9.10'><lease expiry='1'/></host>
      <host mac='52:54:00:00:00:02' ip='192.168.10.10'/>
      <host name='nobody' ip='192.168.9.11'/>
      <bootp file='pxelinux.0' server='192.168.9.5'/>
    </dhcp>
  </ip>
  <ip family='ipv6' address='fd00::1' prefix='64'/>
  <ip family='ipv6' address='fd00:1::1'>
    <dhcp>
      <range start='fd00:1::1' end='fd00:1::ff'/>
      <host id='00:03:00:01:52:54:00:00:00:01' ip='fd00:1::10'/>
      <host id='00:04:aa' name='six' ip='fd00:1::11'/>
    </dhcp>
  </ip>
  <ip family='ipv6' address='fd00:2::1' prefix='60'/>
  <route family='ipv4' address='10.9.0.0' prefix='16' gateway='192.168.9.2' metric='2'/>
  <portgroup name='slow' default='yes'>
    <bandwidth><inbound average='125' peak='250' burst='64'/><outbound average='1000'/></bandwidth>
    <vlan><tag id='7'/></vlan>
  </portgroup>
  <dnsmasq:options><dnsmasq:option value='dhcp-option=42,192.168.9.3'/></dnsmasq:options>
</network>"#;

#[test]
fn a_network_with_everything_is_carried_over_or_named() {
    let network = parse_network(WHOLE).expect("readable");
    assert_eq!((network.name.as_str(), network.mode.as_str()), ("lab", "nat"));
    assert_eq!(network.bridge, IfName::new("virbr9").ok());
    let draft = serde_json::to_value(&network.network).expect("writable");
    assert_eq!(
        draft,
        serde_json::json!({
            "name": "lab", "mtu": 1400, "dns_domain": "lab.example", "isolated": true,
            "port_security": false, "security_groups": [],
            "dns_forwarders": ["192.0.2.53", "corp.example=192.0.2.54:5353"],
            "dns_records": [
                "www A 192.168.9.2", "db A 192.168.9.2", "note TXT \"some text\"",
                "_ldap._tcp SRV 1 2 389 db", "_sip._udp SRV 0 0 5060 pbx.example",
            ],
        })
    );
    let subnet = serde_json::to_value(&network.subnets).expect("writable");
    assert_eq!(
        subnet,
        serde_json::json!([{
            "network": "lab", "cidr": "192.168.9.0/24", "gateway": "192.168.9.1", "host_address": "192.168.9.1",
            "pools": ["192.168.9.2-192.168.9.99", "192.168.9.150-192.168.9.200"], "dhcp": true, "forward": "nat",
            "lease_seconds": 7200, "dhcp_boot": ["file=pxelinux.0", "server=192.168.9.5"],
        }, {
            "network": "lab", "cidr": "fd00::/64", "gateway": "fd00::1", "host_address": "fd00::1", "pools": [],
            "dhcp": false, "forward": "routed", "ipv6_mode": "slaac",
        }, {
            "network": "lab", "cidr": "fd00:1::/64", "gateway": "fd00:1::1", "host_address": "fd00:1::1",
            "pools": ["fd00:1::2-fd00:1::ff"], "dhcp": true, "forward": "routed", "ipv6_mode": "stateful",
        }, {
            "network": "lab", "cidr": "fd00:2::/60", "gateway": "fd00:2::1", "host_address": "fd00:2::1", "pools": [],
            "dhcp": false, "forward": "routed",
        }])
    );
    let ports = serde_json::to_value(&network.ports).expect("writable");
    assert_eq!(
        ports,
        serde_json::json!([{
            "network": "lab", "mac": "52:54:00:00:00:01", "addresses": ["192.168.9.10", "fd00:1::10"],
            "dns_name": "web",
        }])
    );
    let slow = PortGroup { default: true, ingress: Some((1024, Some(524))), egress: Some((8192, None)) };
    assert_eq!(network.portgroups, BTreeMap::from([("slow".to_owned(), slow)]));
    let told = network.left_out.join("\n");
    for what in [
        "nat address",
        "nat port",
        "forward dev eth7",
        "bridge zone",
        "bandwidth:",
        "forwarder for local.example",
        "'elsewhere.example'",
        "localPtr",
        "tftp root",
        "dhcp range 10.0.0.1",
        "00:01 lease",
        "192.168.10.10 is not in",
        "host nobody",
        "host six",
        "router advertisements for fd00:2::/60",
        "route to 10.9.0.0/16 via 192.168.9.2",
        "portgroup 'slow' vlan",
        "inbound peak",
        "ipv6='yes'",
        "title",
        "dnsmasq option 'dhcp-option=42",
    ] {
        assert!(told.contains(what), "{what} is not told of:\n{told}");
    }
}

#[test]
fn each_mode_has_its_forwarding() {
    let of = |forward: &str, rest: &str| {
        parse_network(&format!(
            "<network><name>n</name>{forward}<bridge name='br7'/>{rest}<ip address='10.1.2.3' prefix='16'/></network>"
        ))
    };
    let forward = |text: &str| of(text, "").expect("readable").subnets[0].forward;
    assert_eq!(forward(""), Some(Forward::None));
    assert_eq!(forward("<forward/>"), Some(Forward::Nat));
    assert_eq!(forward("<forward mode='route'/>"), Some(Forward::Routed));
    assert_eq!(forward("<forward mode='open'/>"), Some(Forward::Routed));
    let isolated = of("", "").expect("readable");
    assert_eq!(isolated.subnets[0].gateway, None);
    assert_eq!(isolated.subnets[0].host_address, Some("10.1.2.3".parse().expect("address")));
    assert_eq!(isolated.subnets[0].cidr.to_string(), "10.1.0.0/16");
    assert_eq!(isolated.subnets[0].dhcp, Some(false));
    let vlan = of("<forward mode='bridge'/>", "<vlan><tag id='42'/></vlan>").expect("readable");
    assert_eq!(vlan.network.vlan.map(VlanId::get), Some(42));
    for mode in ["private", "vepa", "passthrough", "hostdev", "bogus"] {
        let error = of(&format!("<forward mode='{mode}'/>"), "").expect_err("refused").to_string();
        assert!(error.contains("'n'") && error.contains(mode), "{error}");
    }
    for xml in [
        "<network><name>n</name><forward mode='bridge'><interface dev='eth0'/></forward></network>",
        "<network><name>n</name><forward mode='bridge'/><bridge name='b'/><virtualport type='openvswitch'/></network>",
        "<network><name>a b</name></network>",
        "<domain/>",
        "<network/>",
        "<!DOCTYPE network [<!ENTITY a 'b'>]><network><name>&a;</name></network>",
    ] {
        parse_network(xml).expect_err(xml);
    }
}

#[test]
fn masks_may_be_missing_and_must_have_no_gap() {
    let of = |ip: &str| {
        let network = parse_network(&format!("<network><name>n</name><bridge name='b'/>{ip}</network>"));
        let network = network.expect("readable");
        (network.subnets.first().map(|subnet| subnet.cidr.to_string()), network.left_out.len())
    };
    assert_eq!(of("<ip address='10.2.3.4'/>"), (Some("10.0.0.0/8".into()), 0));
    assert_eq!(of("<ip address='192.168.3.4'/>"), (Some("192.168.3.0/24".into()), 0));
    assert_eq!(of("<ip address='10.2.3.4' netmask='255.255.252.0'/>"), (Some("10.2.0.0/22".into()), 0));
    for bad in ["netmask='255.0.255.0'", "prefix='33'", "prefix='x'", "netmask='x'"] {
        assert_eq!(of(&format!("<ip address='10.2.3.4' {bad}/>")), (None, 1), "{bad}");
    }
}

#[test]
fn what_is_told_has_a_limit() {
    let hosts: String = (0..1000).map(|n| format!("<host name='n{n}' ip='10.0.0.1'/>")).collect();
    let xml = format!("<network><name>n</name><ip address='10.0.0.1' prefix='8'><dhcp>{hosts}</dhcp></ip></network>");
    assert_eq!(parse_network(&xml).expect("readable").left_out.len(), MAX_NOTES + 1);
}

proptest! {
    /// Whatever stands in the attributes and texts of a network, reading it ends, and no text of it breaks a line.
    #[test]
    fn survives_hostile_xml(at in 0usize..WHOLE.len(), len in 0usize..40, junk in "\\PC{0,12}") {
        let (mut start, mut end) = (at, (at + len).min(WHOLE.len()));
        while !WHOLE.is_char_boundary(start) { start -= 1 }
        while !WHOLE.is_char_boundary(end) { end += 1 }
        let xml = format!("{}{junk}{}", &WHOLE[..start], &WHOLE[end..]);
        if let Ok(network) = parse_network(&xml) {
            prop_assert!(network.left_out.iter().all(|line| !line.contains('\n') && line.len() < 600));
        }
    }
}
