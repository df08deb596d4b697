//! The stores make of every sequence of changes what [`Intent`] makes of it.

use super::*;
use crate::{
    intent::{HostConfig, Intent},
    store::{memory::MemoryStore, sqlite::SqliteStore},
};
use proptest::{collection::vec, prelude::*, sample::subsequence};
use std::collections::BTreeMap;

/// Few of each, so that most changes meet something: names that are taken, children, addresses.
fn any_change() -> impl Strategy<Value = Change> {
    let n = 0..4u8;
    let put_network = (n.clone(), n.clone()).prop_map(|(id, name)| {
        let name = format!("net{name}").parse().expect("a name");
        Change::PutNetwork(Network { name, bridge: None, ..network(id) })
    });
    let put_subnet = (n.clone(), n.clone(), n.clone(), any::<bool>()).prop_map(|(id, of, name, dhcp)| {
        let name = format!("sub{name}").parse().expect("a name");
        Change::PutSubnet(Subnet { name, dhcp, ..subnet(id, of) })
    });
    let addresses = subsequence(vec![(0, 100), (0, 101), (1, 100), (2, 100), (3, 100), (3, 102)], 0..=3).prop_shuffle();
    let put_port = (0..6u8, n.clone(), 0..6u8, addresses).prop_map(|(id, of, mac, addresses)| {
        let mac = port(mac, 0, &[]).mac;
        Change::PutPort(Port { mac, device: None, ..port(id, of, &addresses) })
    });
    prop_oneof![
        4 => put_network,
        6 => put_subnet,
        12 => put_port,
        1 => n.clone().prop_map(|id| Change::DeleteNetwork(network_id(id))),
        2 => n.prop_map(|id| Change::DeleteSubnet(subnet_id(id))),
        2 => (0..6u8).prop_map(|id| Change::DeletePort(port_id(id))),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Intent(Vec<Change>),
    Lease(LeaseRecord),
    NoLease(LeaseRecord),
}

fn any_step() -> impl Strategy<Value = Step> {
    let any_lease =
        || (0..4u8, 0..3u8, 0..9u64).prop_map(|(of, octet, expires)| LeaseRecord { expires, ..lease(of, octet) });
    prop_oneof![
        8 => vec(any_change(), 1..4).prop_map(Step::Intent),
        2 => any_lease().prop_map(Step::Lease),
        1 => any_lease().prop_map(Step::NoLease),
    ]
}

/// What the store should hold.
#[derive(Default)]
struct Model {
    intent: Intent,
    leases: BTreeMap<(Uuid, std::net::IpAddr), LeaseRecord>,
}

impl Model {
    /// The writes of a step that the intent allows.
    fn take(&mut self, step: Step) -> Vec<Write> {
        match step {
            Step::Intent(changes) => match self.intent.apply(changes.clone(), &HostConfig::default()) {
                Ok(_undo) => {
                    for change in &changes {
                        if let Change::DeleteNetwork(id) = change {
                            self.leases.retain(|(network, _), _| *network != id.0);
                        }
                    }
                    changes.into_iter().map(Write::Intent).collect()
                }
                Err(_) => Vec::new(),
            },
            Step::Lease(lease) => {
                if self.intent.network(NetworkId(lease.network)).is_some() {
                    self.leases.insert((lease.network, lease.address), lease.clone());
                }
                vec![Write::PutLease(lease)]
            }
            Step::NoLease(LeaseRecord { network, address, .. }) => {
                self.leases.remove(&(network, address));
                vec![Write::DeleteLease { network, address }]
            }
        }
    }

    fn content(&self) -> Loaded {
        Loaded {
            networks: self.intent.networks().cloned().collect(),
            subnets: self.intent.subnets().cloned().collect(),
            ports: self.intent.ports().cloned().collect(),
            leases: self.leases.values().cloned().collect(),
            ..Loaded::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn memory_holds_what_the_intent_holds(steps in vec(any_step(), 1..60)) {
        let store = MemoryStore::new().expect("new");
        let mut model = Model::default();
        for step in steps {
            wait(store.commit(model.take(step))).expect("what the intent allows, the store takes");
            prop_assert_eq!(&wait(store.load()).expect("load"), &model.content());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_file_holds_what_the_intent_holds(lives in vec(vec(any_step(), 1..25), 1..4)) {
        let (_directory, path) = place();
        let mut model = Model::default();
        for steps in lives {
            let store = SqliteStore::open(&path).expect("open");
            prop_assert_eq!(&wait(store.load()).expect("load"), &model.content());
            for step in steps {
                wait(store.commit(model.take(step))).expect("what the intent allows, the store takes");
            }
        }
        let loaded = wait(SqliteStore::open(&path).expect("open").load()).expect("load");
        prop_assert_eq!(&loaded, &model.content());
    }
}

#[test]
fn the_changes_are_not_all_refused() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut model = Model::default();
    let (mut taken, mut with_addresses, total) = (0, 0, 2000);
    for _ in 0..total {
        let step = any_step().new_tree(&mut runner).expect("a step").current();
        taken += usize::from(!model.take(step).is_empty());
        with_addresses += usize::from(model.intent.ports().any(|port| port.fixed_ips.len() > 1));
    }
    assert!(taken > total / 4 && with_addresses > total / 20, "{taken} taken, {with_addresses} with addresses");
}
