//! Where a guest's NIC is plugged in, changed in its domain's XML.

use super::domain_xml::{self, children, escape};
use crate::net::{IfName, MacAddr};
use roxmltree::Node;

/// The `<interface>` of a domain's XML that has this MAC address, on another source. In live XML its type is that of
/// what the network came to, a bridge. `None` where there is none.
pub fn with_source(domain: &str, mac: MacAddr, source: &Source) -> Option<String> {
    let doc = domain_xml::document(domain).ok()?;
    let devices = children(doc.root_element(), "devices");
    let of_mac = |nic: &Node<'_, '_>| {
        let own = children(*nic, "mac").find_map(|node| node.attribute("address"));
        own.and_then(|text| text.parse::<MacAddr>().ok()) == Some(mac)
    };
    let nic = devices.flat_map(|devices| children(devices, "interface")).find(of_mac)?;
    let old = children(nic, "source").next()?;
    let (from, kind, to) = (nic.range(), nic.attribute_node("type")?.range_value(), old.range());
    let group = old.attribute("portgroup").map(|group| format!(" portgroup='{}'", escape(group))).unwrap_or_default();
    let (new_kind, new) = match source {
        Source::Network(name) => ("network", format!("<source network='{}'{group}/>", escape(name))),
        Source::Bridge(name) => ("bridge", format!("<source bridge='{}'/>", escape(name.as_str()))),
    };
    let (head, middle) = (domain.get(from.start..kind.start)?, domain.get(kind.end..to.start)?);
    Some(format!("{head}{new_kind}{middle}{new}{}", domain.get(to.end..from.end)?))
}

/// Where a NIC is to be plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Network(String),
    Bridge(IfName),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nic_is_put_on_another_source_and_is_else_the_same() {
        let domain = "<domain id='1'><devices><interface type='network'><mac address='52:54:00:00:00:09'/>\
                      <source network='x'/></interface><interface type='bridge'><mac address='52:54:00:00:00:01'/>\
                      <source network='default' portid='81ff0d90-c91e-6742-64da-4a736edb9a9b' portgroup='a&amp;b' bridge='virbr0'/>\
                      <target dev='vnet0'/><model type='virtio'/></interface></devices></domain>";
        let mac = "52:54:00:00:00:01".parse().expect("mac");
        assert_eq!(
            with_source(domain, mac, &Source::Network("default".into())).as_deref(),
            Some(
                "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='default' \
                 portgroup='a&amp;b'/><target dev='vnet0'/><model type='virtio'/></interface>"
            )
        );
        let bridge = Source::Bridge(IfName::new("vmf-default").expect("name"));
        let bridged = with_source(domain, mac, &bridge).expect("there");
        assert!(bridged.starts_with("<interface type='bridge'>"), "{bridged}");
        assert!(bridged.contains("<source bridge='vmf-default'/>"), "{bridged}");
        assert_eq!(with_source(domain, "52:54:00:00:00:07".parse().expect("mac"), &bridge), None);
    }
}
