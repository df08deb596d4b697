//! What a reply tells: by port, then by subnet; for a vendor class, then for all.

use super::{
    request::Request,
    scope::{Host, Subnet},
};
use crate::net::{
    BootRule, BootSelector, DhcpOption,
    dhcp::{encode_route, put_name},
};
use std::{borrow::Cow, net::Ipv4Addr};

/// Option codes (IANA).
pub(super) mod code {
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTERS: u8 = 3;
    pub const DNS_SERVERS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const MESSAGE: u8 = 56;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER_NAME: u8 = 66;
    pub const BOOTFILE_NAME: u8 = 67;
    pub const RAPID_COMMIT: u8 = 80;
    pub const FQDN: u8 = 81;
    pub const RELAY_INFO: u8 = 82;
    pub const MACHINE_ID: u8 = 97;
    pub const DOMAIN_SEARCH: u8 = 119;
    pub const STATIC_ROUTES: u8 = 121;
    /// As 121, for Windows before Vista.
    pub const STATIC_ROUTES_MS: u8 = 249;
    pub const END: u8 = 255;
}

/// One subnet's options, encoded once.
#[derive(Debug)]
pub(super) struct OptionSet {
    /// For all clients, without code and length.
    general: Vec<(u8, Vec<u8>)>,
    classed: Vec<DhcpOption>,
    boot: Vec<BootRule>,
}

impl OptionSet {
    pub(super) fn new(subnet: &Subnet) -> Self {
        let octets = |addresses: &[Ipv4Addr]| addresses.iter().flat_map(|a| a.octets()).collect::<Vec<u8>>();
        let mut general = vec![(code::SUBNET_MASK, subnet.prefix.netmask().octets().to_vec())];
        general.extend(subnet.router.map(|router| (code::ROUTERS, router.octets().to_vec())));
        if !subnet.dns_servers.is_empty() {
            general.push((code::DNS_SERVERS, octets(&subnet.dns_servers)));
        }
        if let Some(domain) = &subnet.domain {
            let mut search = Vec::new();
            put_name(&mut search, domain.as_str());
            general.push((code::DOMAIN_NAME, domain.to_string().into_bytes()));
            general.push((code::DOMAIN_SEARCH, search));
        }
        general.extend(subnet.mtu.map(|mtu| (code::MTU, mtu.to_be_bytes().to_vec())));
        if subnet.prefix.prefix_len() < 31 {
            general.push((code::BROADCAST, subnet.prefix.broadcast().octets().to_vec()));
        }
        for option in subnet.options.iter().filter(|option| option.class().is_none()) {
            general.retain(|(known, _)| *known != option.code());
            general.push((option.code(), option.data().to_vec()));
        }
        let has_routes = general.iter().any(|(known, _)| *known == code::STATIC_ROUTES);
        if !subnet.host_routes.is_empty() && !has_routes {
            let mut routes = Vec::new();
            subnet.host_routes.iter().for_each(|(to, via)| encode_route(&mut routes, *to, *via));
            // Who understands option 121 ignores the router option (RFC 3442), so the default route is repeated here.
            let router =
                general.iter().find(|(known, _)| *known == code::ROUTERS).and_then(|(_, data)| data.first_chunk());
            if let Some(router) = router {
                encode_route(&mut routes, Default::default(), Ipv4Addr::from(*router));
            }
            general.push((code::STATIC_ROUTES, routes));
        }
        let classed = subnet.options.iter().filter(|option| option.class().is_some()).cloned().collect();
        Self { general, classed, boot: subnet.boot.clone() }
    }
}

/// The options for one client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options<'a> {
    pub(super) request: &'a Request,
    pub(super) subnet: Option<&'a OptionSet>,
    pub(super) host: Option<&'a Host>,
}

impl<'a> Options<'a> {
    /// What the client is told for an option, without code and length.
    pub(super) fn get(self, wanted: u8) -> Option<Cow<'a, [u8]>> {
        let wanted = if wanted == code::STATIC_ROUTES_MS { self.static_routes(wanted) } else { wanted };
        let own = self.host.map(|host| host.options.as_slice()).unwrap_or_default();
        let find = |options: &'a [DhcpOption], classed: bool| {
            let mut of_code = options.iter().filter(|o| o.code() == wanted && o.class().is_some() == classed);
            of_code.find(|option| self.is_for(option)).map(|option| Cow::Borrowed(option.data()))
        };
        let of_host = || {
            let name = self.host.filter(|_| wanted == code::HOST_NAME)?.host_name.as_ref()?;
            Some(Cow::Borrowed(name.as_str().as_bytes()))
        };
        let of_subnet = || {
            let set = self.subnet?;
            find(&set.classed, true).or_else(|| {
                let (_, data) = set.general.iter().find(|(known, _)| *known == wanted)?;
                Some(Cow::Borrowed(data.as_slice()))
            })
        };
        find(own, true)
            .or_else(|| find(own, false))
            .or_else(of_host)
            .or_else(of_subnet)
            .or_else(|| self.of_boot(wanted))
    }

    /// The codes of all that there is for this client, each once, in a fixed order.
    pub(super) fn codes(self) -> Vec<u8> {
        let general = self.subnet.into_iter().flat_map(|set| set.general.iter().map(|(known, _)| *known));
        let classed = self.subnet.into_iter().flat_map(|set| &set.classed);
        let own = self.host.into_iter().flat_map(|host| &host.options);
        let optional = classed.chain(own).filter(|option| self.is_for(option)).map(DhcpOption::code);
        let name = self.host.and_then(|host| host.host_name.as_ref()).map(|_| code::HOST_NAME);
        let mut codes = Vec::new();
        for known in general.chain(optional).chain(name) {
            if !codes.contains(&known) {
                codes.push(known);
            }
        }
        codes
    }

    /// Windows before Vista knows option 121 by another number.
    fn static_routes(self, wanted: u8) -> u8 {
        let own = |options: &[DhcpOption]| options.iter().any(|option| option.code() == wanted);
        let explicit = self.host.is_some_and(|host| own(&host.options))
            || self
                .subnet
                .is_some_and(|set| own(&set.classed) || set.general.iter().any(|(known, _)| *known == wanted));
        if explicit { wanted } else { code::STATIC_ROUTES }
    }

    fn is_for(self, option: &DhcpOption) -> bool {
        option.class().is_none_or(|class| self.request.vendor_class().starts_with(class.as_bytes()))
    }

    fn of_boot(self, wanted: u8) -> Option<Cow<'a, [u8]>> {
        match wanted {
            code::TFTP_SERVER_NAME => Some(Cow::Owned(self.next_server()?.to_string().into_bytes())),
            code::BOOTFILE_NAME => Some(Cow::Borrowed(self.boot_file()?.as_bytes())),
            _ => None,
        }
    }

    /// `siaddr`: who has the boot file.
    pub(super) fn next_server(self) -> Option<Ipv4Addr> {
        self.rule(BootSelector::Server)?.parse().ok()
    }

    /// The boot file: iPXE's script for iPXE; a URL for UEFI HTTP boot; else what the architecture runs.
    pub(super) fn boot_file(self) -> Option<&'a str> {
        let arch = self.request.arch.map(|arch| match arch {
            // EFI byte code is what some x86-64 firmware says (RFC 4578 errata 4625 tells how 7 and 9 were confused).
            9 => 7,
            17 => 16,
            other => other,
        });
        let exact = self.request.arch.and_then(|arch| self.rule(BootSelector::Arch(arch)));
        let of_arch = || exact.or_else(|| self.rule(BootSelector::Arch(arch?)));
        let ipxe = self.request.ipxe.then(|| self.rule(BootSelector::Ipxe)).flatten();
        if self.wants_http() {
            return ipxe.or_else(of_arch).or_else(|| self.rule(BootSelector::Http));
        }
        ipxe.or_else(of_arch).or_else(|| self.rule(BootSelector::File))
    }

    /// UEFI specification 2.10, section 24.7: the reply must name the class that the client did.
    pub(super) fn wants_http(self) -> bool {
        self.request.vendor_class().starts_with(b"HTTPClient")
    }

    fn rule(self, selector: BootSelector) -> Option<&'a str> {
        let own = self.host.map(|host| host.boot.as_slice()).unwrap_or_default();
        let subnet = self.subnet.map(|set| set.boot.as_slice()).unwrap_or_default();
        own.iter().chain(subnet).find(|rule| rule.selector() == selector).map(BootRule::value)
    }
}
