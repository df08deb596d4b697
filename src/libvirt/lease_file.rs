//! A network's leases as libvirt reads them.
//!
//! `virsh net-dhcp-leases`, `virsh domifaddr --source lease` and libnss-libvirt read `BRIDGE.status` in [`FOLDER`] for
//! every network that has a `<bridge>`, whatever its forward mode (libvirt, src/network/bridge_driver.c
//! `networkGetDHCPLeases`); for its own networks dnsmasq's helper writes it (src/util/virlease.c). libvirt takes the
//! prefix from the network's `<ip>`, which a network of mode `bridge` cannot have, so that it shows `/0`.

use crate::{
    backend::LeaseRecord,
    net::{IfName, MacAddr},
};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

/// Where libvirt's daemons of the system look.
pub const FOLDER: &str = "/var/lib/libvirt/dnsmasq";

/// A file beyond 32 MiB (`VIR_NETWORK_DHCP_LEASE_FILE_SIZE_MAX`) is an error to libvirt, which then shows nothing.
const MAX_BYTES: usize = 32 << 20;

pub fn file_name(bridge: &IfName) -> String {
    format!("{bridge}.status")
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "ip-address")]
    address: IpAddr,
    #[serde(rename = "mac-address")]
    mac: String,
    #[serde(rename = "hostname", skip_serializing_if = "Option::is_none")]
    host_name: Option<&'a str>,
    #[serde(rename = "client-id", skip_serializing_if = "String::is_empty")]
    client: String,
    /// Seconds since 1970 by the wall clock; 0: for ever.
    #[serde(rename = "expiry-time")]
    expires: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iaid: Option<String>,
}

/// The file's text, and how many leases are left out of it for want of room. `expires` are by the wall clock, 0 where a
/// lease has no end.
pub fn render(leases: &[LeaseRecord]) -> (String, usize) {
    render_within(leases, MAX_BYTES)
}

fn render_within(leases: &[LeaseRecord], room: usize) -> (String, usize) {
    let mut text = String::from("[");
    for (at, lease) in leases.iter().enumerate() {
        let entry = Entry {
            address: lease.address,
            mac: lease.mac.to_string(),
            host_name: lease.host_name.as_deref(),
            client: client_text(&lease.client),
            expires: lease.expires,
            iaid: lease.iaid.map(|iaid| iaid.to_string()),
        };
        let entry = serde_json::to_string(&entry).expect("texts and numbers can be written");
        // With the comma, and what closes the list.
        if text.len() + entry.len() + 5 > room {
            text.push_str("\n]\n");
            return (text, leases.len() - at);
        }
        let comma = if at == 0 { "\n" } else { ",\n" };
        text.push_str(comma);
        text.push_str(&entry);
    }
    text.push_str("\n]\n");
    (text, 0)
}

/// A lease as a file tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLease {
    pub address: IpAddr,
    pub mac: MacAddr,
    pub client: Vec<u8>,
    pub host_name: Option<String>,
    /// Seconds since 1970 by the wall clock; 0: for ever.
    pub expires: u64,
    /// Of DHCPv6's: the association that the address is in (RFC 8415 section 21.4).
    pub iaid: Option<u32>,
}

/// The leases of a file that libvirt's helper wrote. What cannot be read is passed over: its client asks again.
pub fn parse(text: &str) -> Vec<FoundLease> {
    let entries: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    let lease = |entry: &Value| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let mac: MacAddr = text("mac-address")?.parse().ok()?;
        let octets = |text: &str| text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        let client: Option<Vec<u8>> = text("client-id").and_then(octets);
        // Hardware type 1 and the address, where it sent none (RFC 2131 section 4.2).
        let client = client.unwrap_or_else(|| [1].into_iter().chain(mac.octets()).collect());
        let address: IpAddr = text("ip-address")?.parse().ok()?;
        let iaid = text("iaid").and_then(|iaid| iaid.parse().ok());
        Some(FoundLease {
            // A temporary address is of an association of another kind, and soon over.
            address: Some(address).filter(|address| address.is_ipv4() == iaid.is_none())?,
            iaid,
            mac,
            client,
            host_name: text("hostname").map(str::to_owned),
            expires: entry.get("expiry-time")?.as_u64()?,
        })
    };
    entries.iter().filter_map(lease).collect()
}

/// As dnsmasq writes it: octets in hexadecimal, with colons.
fn client_text(client: &[u8]) -> String {
    let mut text = String::with_capacity(client.len() * 3);
    for (at, octet) in client.iter().enumerate() {
        let colon = if at == 0 { "" } else { ":" };
        write!(text, "{colon}{octet:02x}").expect("a String takes all");
    }
    text
}

/// Leases by the file that they belong to; a bridge without leases has an empty list.
pub type ByBridge = BTreeMap<IfName, Vec<LeaseRecord>>;

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn lease(last: u8, host_name: Option<&str>) -> LeaseRecord {
        LeaseRecord {
            network: Uuid::nil(),
            address: IpAddr::from([192, 168, 123, last]),
            client: vec![1, 0x52, 0x54, 0, 0, 0, last],
            mac: MacAddr::local([0, 0, 0, last]),
            host_name: host_name.map(str::to_owned),
            port: None,
            expires: 1_800_000_000,
            iaid: None,
            prefix_length: None,
        }
    }

    #[test]
    fn is_what_libvirts_own_helper_writes() {
        let (text, left_out) = render(&[lease(10, Some("web")), lease(11, None)]);
        assert_eq!(left_out, 0);
        let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read[0]["ip-address"], "192.168.123.10");
        assert_eq!(read[0]["hostname"], "web");
        assert_eq!(read[0]["client-id"], "01:52:54:00:00:00:0a");
        assert_eq!(read[0]["expiry-time"], 1_800_000_000);
        assert_eq!(read[1].get("hostname"), None);
        assert_eq!(render(&[]).0, "[\n]\n");
        let read = parse(&text);
        assert_eq!((read.len(), &read[0].client), (2, &lease(10, None).client));
        // As libvirt's helper has it of DHCPv6 (src/util/virlease.c).
        let six = r#"{"iaid": "7876609", "ip-address": "fd00::7", "mac-address": "52:54:00:00:00:01",
            "client-id": "00:04:aa", "server-duid": "00:01", "expiry-time": 1800000000}"#;
        let [read] = parse(&format!("[{six}]")).try_into().expect("one");
        assert_eq!((read.iaid, read.client), (Some(7_876_609), vec![0, 4, 0xaa]));
        assert_eq!(parse(&format!("[{}]", six.replace("\"78", "\"T78"))), []);
        assert_eq!(parse("[{}, {\"mac-address\": 1}] x"), []);
        assert_eq!(parse("[{}, {\"mac-address\": 1}]"), []);
    }

    #[test]
    fn stays_within_what_libvirt_reads() {
        let all: Vec<LeaseRecord> = (0..200).map(|last| lease(last, Some("web"))).collect();
        let (text, left_out) = render_within(&all, 4096);
        let read: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
        assert!(text.len() <= 4096 && read.len() > 10, "{}", text.len());
        assert_eq!(read.len() + left_out, all.len());
    }
}
