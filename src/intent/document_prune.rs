//! What goes because a document does not name it.

use super::{
    Change, Document, Intent, PortId, Remote,
    document::{Planning, is_prunable, port_label},
};
use std::collections::BTreeSet;

impl Planning<'_> {
    /// Ports, subnets and networks; what guests' ports need stays, and is said to. `named`: the ports of the document.
    pub(super) fn prune(&mut self, document: &Document, named: &BTreeSet<PortId>) {
        let before = self.before;
        for port in before.ports().filter(|port| is_prunable(port) && !named.contains(&port.id)) {
            self.delete(Change::DeletePort(port.id), "port", port_label(before, port));
        }
        // A subnet without a name has its network's, which may be told by its identity.
        let network_of = |text: &'_ str| before.find_network(text).map(|network| network.name.as_str()).ok();
        let subnets: BTreeSet<&str> = document
            .subnets
            .iter()
            .map(|draft| match &draft.name {
                Some(name) => name.as_str(),
                None => network_of(&draft.network).unwrap_or(draft.network.as_str()),
            })
            .collect();
        for subnet in before.subnets().filter(|subnet| !subnets.contains(subnet.name.as_str())) {
            let holds = |port: &&super::Port| port.fixed_ips.iter().any(|ip| ip.subnet == subnet.id);
            let mut holders = before.ports_of(subnet.network).filter(|port| !is_prunable(port)).filter(holds);
            match holders.next() {
                Some(port) => self.kept.push(format!(
                    "subnet '{}' stays: it has the addresses of {}",
                    subnet.name,
                    guest_port(before, port)
                )),
                None => self.delete(Change::DeleteSubnet(subnet.id), "subnet", &subnet.name),
            }
        }
        for network in before.networks() {
            if document.networks.iter().any(|draft| draft.name == network.name) {
                continue;
            }
            match before.ports_of(network.id).find(|port| !is_prunable(port)) {
                Some(port) => {
                    self.kept.push(format!("network '{}' stays: it has {}", network.name, guest_port(before, port)));
                }
                None => self.delete(Change::DeleteNetwork(network.id), "network", &network.name),
            }
        }
        self.doom_groups(document);
    }

    /// Groups that the document does not name go where nothing that stays needs them; which that is shows when all
    /// else is planned.
    fn doom_groups(&mut self, document: &Document) {
        self.unnamed_groups = self
            .before
            .security_groups()
            .filter(|group| !group.is_default() && !document.security_groups.iter().any(|d| d.name == group.name))
            .map(|group| group.id)
            .collect();
        self.unnamed_address_groups = self
            .before
            .address_groups()
            .filter(|group| !document.address_groups.iter().any(|d| d.name == group.name))
            .map(|group| group.id)
            .collect();
    }

    pub(super) fn prune_groups(&mut self) {
        let mut doomed = std::mem::take(&mut self.unnamed_groups);
        let mut doomed_addresses = std::mem::take(&mut self.unnamed_address_groups);
        // A group that stays keeps those that its rules name.
        loop {
            let kept = doomed.iter().copied().find_map(|id| {
                let user = self.after.networks().find(|network| network.security.groups.contains(&id));
                let user = user.map(|network| format!("network '{}'", network.name));
                let port = || {
                    let has = |port: &&super::Port| port.security.groups.as_ref().is_some_and(|g| g.contains(&id));
                    self.after.ports().find(has).map(|port| format!("port {}", port_label(&self.after, port)))
                };
                let rule = || rule_user(&self.after, Remote::Group(id), &doomed);
                user.or_else(port).or_else(rule).map(|user| (id, user))
            });
            let Some((id, user)) = kept else { break };
            doomed.remove(&id);
            if let Some(group) = self.before.security_group(id) {
                self.kept.push(format!("security group '{}' stays: {user} names it", group.name));
            }
        }
        doomed_addresses.retain(|id| {
            let user = rule_user(&self.after, Remote::AddressGroup(*id), &doomed);
            if let (Some(user), Some(group)) = (&user, self.before.address_group(*id)) {
                self.kept.push(format!("address group '{}' stays: {user} names it", group.name));
            }
            user.is_none()
        });
        for id in doomed {
            if let Some(group) = self.before.security_group(id) {
                self.delete(Change::DeleteSecurityGroup(id), "security_group", &group.name);
            }
        }
        for id in doomed_addresses {
            if let Some(group) = self.before.address_group(id) {
                self.delete(Change::DeleteAddressGroup(id), "address_group", &group.name);
            }
        }
    }
}

fn rule_user(intent: &Intent, remote: Remote, doomed: &BTreeSet<super::SecurityGroupId>) -> Option<String> {
    let user = intent
        .security_groups()
        .find(|group| !doomed.contains(&group.id) && group.rules.iter().any(|rule| rule.remote == remote));
    user.map(|group| format!("a rule of security group '{}'", group.name))
}

fn guest_port(intent: &Intent, port: &super::Port) -> String {
    match &port.device {
        Some(device) if !device.name.is_empty() => format!("the port that guest '{}' made", device.name),
        _ => format!("the port {} that a guest made", port_label(intent, port)),
    }
}
