use super::*;
use proptest::prelude::*;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn wanted(n: u128, name: &str, bridge: &str) -> PublishedNetwork {
    PublishedNetwork { uuid: id(n), name: name.into(), bridge: bridge.parse().expect("name") }
}

fn existing(n: u128, name: &str, bridge: &str) -> ExistingNetwork {
    let shape = Some(Shape::of(&wanted(n, name, bridge)));
    ExistingNetwork { uuid: id(n), name: name.into(), autostart: true, config: shape.clone(), live: shape }
}

fn steps(plan: &PublishPlan) -> Vec<String> {
    plan.actions.iter().map(|action| action.to_string().replace("libvirt network ", "")).collect()
}

#[test]
fn nothing_to_do_where_nothing_differs() {
    let foreign = ExistingNetwork { config: None, ..existing(9, "default", "virbr0") };
    let have = [existing(1, "blue", "vmf-a"), foreign];
    let plan = plan_publish(&have, &[wanted(1, "blue", "vmf-a")], &BTreeSet::from([id(1)]));
    assert_eq!(plan, PublishPlan::default());
}

#[test]
fn publishes_and_repairs() {
    let want = [wanted(1, "blue", "vmf-a")];
    let none = BTreeSet::new();
    let plan = |have: &[ExistingNetwork]| steps(&plan_publish(have, &want, &none));
    assert_eq!(plan(&[]), ["define 'blue' on vmf-a", "start 'blue'", "set autostart of 'blue'"]);
    let stopped = ExistingNetwork { live: None, autostart: false, ..existing(1, "blue", "vmf-a") };
    assert_eq!(plan(&[stopped]), ["start 'blue'", "set autostart of 'blue'"]);
    let transient = ExistingNetwork { config: None, autostart: false, ..existing(1, "blue", "vmf-a") };
    assert_eq!(plan(&[transient]), ["define 'blue' on vmf-a", "set autostart of 'blue'"]);
    assert_eq!(plan(&[existing(1, "blue", "br9")]), ["define 'blue' on vmf-a", "stop 'blue'", "start 'blue'"]);
    let edited = ExistingNetwork { live: Some(Shape::default()), ..existing(1, "blue", "vmf-a") };
    assert_eq!(plan(&[edited]), ["stop 'blue'", "start 'blue'"]);
}

#[test]
fn renames_and_swaps() {
    let have = [existing(1, "a", "br1"), existing(2, "b", "br2")];
    let plan = plan_publish(&have, &[wanted(1, "b", "br1"), wanted(2, "a", "br2")], &BTreeSet::new());
    let expected = [
        "stop 'a'",
        "undefine 'a'",
        "stop 'b'",
        "undefine 'b'",
        "define 'b' on br1",
        "start 'b'",
        "set autostart of 'b'",
        "define 'a' on br2",
        "start 'a'",
        "set autostart of 'a'",
    ];
    assert_eq!(steps(&plan), expected);
}

#[test]
fn removes_only_what_was_published() {
    let have = [existing(1, "old", "br1"), existing(2, "theirs", "br1")];
    let plan = plan_publish(&have, &[], &BTreeSet::from([id(1), id(7)]));
    assert_eq!(steps(&plan), ["stop 'old'", "undefine 'old'"]);
}

#[test]
fn leaves_foreign_networks_alone() {
    // 2 cannot be renamed to 'default', keeps 'b', and so refuses it to 3.
    let have = [existing(1, "default", "virbr0"), existing(2, "b", "br2")];
    let want = [wanted(2, "default", "br2"), wanted(3, "b", "br3"), wanted(4, "c", "br4")];
    let plan = plan_publish(&have, &want, &BTreeSet::from([id(2)]));
    assert_eq!(steps(&plan), ["define 'c' on br4", "start 'c'", "set autostart of 'c'"]);
    assert_eq!(plan.errors.get(&id(2)), Some(&PublishError::NameTaken { name: "default".into(), holder: id(1) }));
    assert_eq!(plan.errors.get(&id(3)), Some(&PublishError::NameTaken { name: "b".into(), holder: id(2) }));
    assert_eq!(plan.errors.len(), 2);
}

#[test]
fn refuses_bad_names_and_twins() {
    for bad in ["", "a/b", "a\0b", "a\nb", " a", &"x".repeat(256)] {
        let plan = plan_publish(&[], &[wanted(1, bad, "br1")], &BTreeSet::new());
        assert!(plan.actions.is_empty() && matches!(plan.errors[&id(1)], PublishError::Name { .. }), "{bad:?}");
    }
    let plan = plan_publish(&[], &[wanted(1, "a", "br1"), wanted(2, "a", "br2")], &BTreeSet::new());
    assert!(matches!(plan.errors[&id(2)], PublishError::Duplicate { .. }));
    assert_eq!(plan.actions.len(), 3);
}

#[test]
fn xml_round_trip() {
    let network = wanted(1, "a'b <&\">", "vmf-a&'b");
    let xml = network_xml(&network);
    assert_eq!(parse_shape(&xml), Ok(Shape::of(&network)));
    let doc = domain_xml::document(&xml).expect("well formed");
    assert_eq!(domain_xml::field(doc.root_element(), "network", "name"), Ok("a'b <&\">"));
    let nat = parse_shape("<network><forward/><bridge name='virbr0'/></network>").expect("parses");
    assert_eq!(nat, Shape { forward: Some("nat".into()), bridge: Some("virbr0".into()) });
    assert_eq!(parse_shape("<network/>"), Ok(Shape::default()));
}

/// libvirt's rules, as far as they bear on the order of the steps.
fn simulate(networks: &mut Vec<ExistingNetwork>, action: &PublishAction) -> Result<(), String> {
    let at = |networks: &[ExistingNetwork], uuid: &Uuid| {
        networks.iter().position(|n| n.uuid == *uuid).ok_or_else(|| format!("no network {uuid}"))
    };
    match action {
        PublishAction::Stop { uuid, .. } => {
            let at = at(networks, uuid)?;
            networks[at].live.take().ok_or("not active")?;
        }
        PublishAction::Undefine { uuid, .. } => {
            let at = at(networks, uuid)?;
            networks[at].config.take().ok_or("not persistent")?;
            networks[at].autostart = false;
        }
        PublishAction::Define(want) => {
            if networks.iter().any(|n| (n.name == want.name) != (n.uuid == want.uuid)) {
                return Err("name and UUID disagree".into());
            }
            match at(networks, &want.uuid) {
                Ok(at) => networks[at].config = Some(Shape::of(want)),
                Err(_) => networks.push(ExistingNetwork {
                    uuid: want.uuid,
                    name: want.name.clone(),
                    autostart: false,
                    config: Some(Shape::of(want)),
                    live: None,
                }),
            }
        }
        PublishAction::Autostart { uuid, .. } => {
            let at = at(networks, uuid)?;
            networks[at].config.as_ref().ok_or("not persistent")?;
            networks[at].autostart = true;
        }
        PublishAction::Start { uuid, .. } => {
            let at = at(networks, uuid)?;
            if networks[at].live.is_some() {
                return Err("already active".into());
            }
            networks[at].live = networks[at].config.clone();
        }
    }
    networks.retain(|n| n.config.is_some() || n.live.is_some());
    Ok(())
}

fn any_existing() -> impl Strategy<Value = Vec<ExistingNetwork>> {
    let shape = || prop_oneof![Just(None), Just(Some("br1")), Just(Some("br2"))];
    prop::collection::btree_map(0u128..6, (any::<bool>(), shape(), shape()), 0..6).prop_flat_map(|networks| {
        let names: Vec<_> = ["a", "b", "c", "d", "e", "f"].into_iter().take(networks.len().max(1)).collect();
        Just(names).prop_shuffle().prop_map(move |names| {
            let of = |bridge: Option<&str>| {
                bridge.map(|b| Shape { forward: Some("bridge".into()), bridge: Some(b.to_owned()) })
            };
            let networks = networks.iter().zip(names).map(|((&n, &(autostart, config, live)), name)| ExistingNetwork {
                uuid: id(n),
                name: name.to_owned(),
                autostart: autostart && config.is_some(),
                config: of(config),
                live: of(live),
            });
            networks.filter(|n| n.config.is_some() || n.live.is_some()).collect()
        })
    })
}

proptest! {
    #[test]
    fn converges_from_any_start(
        have in any_existing(),
        want in prop::collection::vec((0u128..6, "[a-f]", "br[12]"), 0..6),
        earlier in prop::collection::btree_set(0u128..6, 0..6),
    ) {
        let want: Vec<_> = want.iter().map(|(n, name, bridge)| wanted(*n, name, bridge)).collect();
        let earlier: BTreeSet<_> = earlier.into_iter().map(id).collect();
        let ours = |uuid: &Uuid| earlier.contains(uuid) || want.iter().any(|w| w.uuid == *uuid);
        let plan = plan_publish(&have, &want, &earlier);
        let mut now = have.clone();
        for action in &plan.actions {
            prop_assert!(ours(&action.uuid()), "touches what is not ours: {}", action);
            prop_assert_eq!(simulate(&mut now, action), Ok(()), "{}", action);
        }
        for foreign in have.iter().filter(|n| !ours(&n.uuid)) {
            prop_assert!(now.contains(foreign));
        }
        for network in want.iter().filter(|w| !plan.errors.contains_key(&w.uuid)) {
            let bridge = network.bridge.as_str();
            prop_assert!(now.contains(&existing(network.uuid.as_u128(), &network.name, bridge)), "{:?}", network);
        }
        let again = plan_publish(&now, &want, &earlier);
        prop_assert_eq!(again.actions, []);
        prop_assert_eq!(again.errors, plan.errors);
    }
}
