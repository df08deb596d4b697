use super::{
    Context, Error, Kind,
    access::{Action, FREE_DOCUMENT, MAX_DOCUMENT, Verb},
    document::{self, Options},
    export::{Dirty, Shared},
    info::ManagerInfo,
    insight, path,
    value::{self, Dictionary},
};
use crate::{
    backend::LeaseRecord,
    reconciler::{
        Command, GroupCommand, View,
        importer::{self, ImportRequest},
    },
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use zbus::{Connection, OwnedObjectPath, Variant, interface, message::Header};

/// `org.vmfabric1.Manager`, documented in `dbus/org.vmfabric1.Manager.xml`.
#[derive(Debug)]
pub struct Manager {
    context: Arc<Context>,
    info: Shared<ManagerInfo>,
}

impl Manager {
    pub(super) fn new(context: Arc<Context>, info: Shared<ManagerInfo>) -> Self {
        Self { context, info }
    }
}

#[interface(name = "org.vmfabric1.Manager", introspection_docs = false)]
impl Manager {
    #[zbus(out_args("network"))]
    async fn create_network(
        &self,
        properties: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<OwnedObjectPath, Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Create, Kind::Network)).await?;
        let draft = value::parse(&properties)?;
        let network = self.context.handle.call(|reply| Command::CreateNetwork(draft, reply)).await?;
        self.context.sync(bus, Dirty::network(network.id)).await?;
        Ok(path::network(network.id))
    }

    #[zbus(out_args("subnet"))]
    async fn create_subnet(
        &self,
        properties: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<OwnedObjectPath, Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Create, Kind::Subnet)).await?;
        let draft = value::parse(&properties)?;
        let subnet = self.context.handle.call(|reply| Command::CreateSubnet(draft, reply)).await?;
        self.context.sync(bus, Dirty::subnet(subnet.id)).await?;
        Ok(path::subnet(subnet.id))
    }

    #[zbus(out_args("port"))]
    async fn create_port(
        &self,
        properties: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<OwnedObjectPath, Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Create, Kind::Port)).await?;
        let draft = value::parse(&properties)?;
        let port = self.context.handle.call(|reply| Command::CreatePort(draft, reply)).await?;
        self.context.sync(bus, Dirty::port(port.id)).await?;
        Ok(path::port(port.id))
    }

    #[zbus(out_args("security_group"))]
    async fn create_security_group(
        &self,
        properties: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<OwnedObjectPath, Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Create, Kind::SecurityGroup)).await?;
        let draft = value::parse(&properties)?;
        let id = self.context.handle.call(|reply| Command::Group(GroupCommand::Create(draft, reply))).await?;
        self.context.sync(bus, Dirty::group(id)).await?;
        Ok(path::security_group(id))
    }

    #[zbus(out_args("address_group"))]
    async fn create_address_group(
        &self,
        properties: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<OwnedObjectPath, Error> {
        self.context.authorize(bus, &header, Action::Of(Verb::Create, Kind::AddressGroup)).await?;
        let draft = value::parse(&properties)?;
        let id = self.context.handle.call(|reply| Command::Group(GroupCommand::CreateAddresses(draft, reply))).await?;
        self.context.sync(bus, Dirty::address_group(id)).await?;
        Ok(path::address_group(id))
    }

    #[zbus(out_args("network"))]
    fn get_network(&self, name: &str) -> Result<OwnedObjectPath, Error> {
        Ok(path::network(self.context.handle.view().intent.find_network(short(name)?)?.id))
    }

    #[zbus(out_args("subnet"))]
    fn get_subnet(&self, name: &str) -> Result<OwnedObjectPath, Error> {
        Ok(path::subnet(self.context.handle.view().intent.find_subnet(short(name)?)?.id))
    }

    #[zbus(out_args("port"))]
    fn get_port(&self, name: &str) -> Result<OwnedObjectPath, Error> {
        Ok(path::port(self.context.handle.view().intent.find_port(short(name)?)?.id))
    }

    #[zbus(out_args("security_group"))]
    fn get_security_group(&self, name: &str) -> Result<OwnedObjectPath, Error> {
        Ok(path::security_group(self.context.handle.view().intent.find_security_group(short(name)?)?.id))
    }

    #[zbus(out_args("address_group"))]
    fn get_address_group(&self, name: &str) -> Result<OwnedObjectPath, Error> {
        Ok(path::address_group(self.context.handle.view().intent.find_address_group(short(name)?)?.id))
    }

    #[zbus(out_args("leases"))]
    fn list_leases(&self, network: &str) -> Result<Vec<HashMap<&'static str, Variant<'static>>>, Error> {
        let view = self.context.handle.view();
        let only = match network {
            "" => None,
            name => Some(view.intent.find_network(short(name)?)?.id),
        };
        let leases = view.leases.iter().filter(|((network, _), _)| only.is_none_or(|only| only == *network));
        Ok(leases.map(|(_, lease)| described(lease, &view)).collect())
    }

    #[zbus(out_args("changes"))]
    async fn plan(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<Vec<String>, Error> {
        let _turn = self.context.turn(&self.context.plans, bus, &header).await?;
        Ok(self.context.handle.call(Command::Plan).await?)
    }

    #[zbus(out_args("outcome"))]
    async fn apply(
        &self,
        document: &str,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<insight::Answer, Error> {
        let options: Options = value::parse(&options)?;
        if options.dry_run {
            value::check_size(&header, MAX_DOCUMENT)?;
            // What takes long to answer is not for everybody to ask.
            if document.len() > FREE_DOCUMENT {
                self.context.authorize(bus, &header, Action::Apply).await?;
            }
            let _turn = self.context.turn(&self.context.plans, bus, &header).await?;
            return document::preview(&self.context.handle, document, options).await;
        }
        self.context.authorize(bus, &header, Action::Apply).await?;
        let request = Box::new(options.request(document)?);
        let prepared = self.context.handle.call(|reply| Command::Apply(request, reply)).await?;
        self.context.sync(bus, Dirty::of(&prepared.plan.changes)).await?;
        document::outcome(&prepared, None)
    }

    #[zbus(out_args("document"))]
    async fn export(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<String, Error> {
        let _turn = self.context.turn(&self.context.plans, bus, &header).await?;
        document::export(&self.context.handle)
    }

    #[zbus(out_args("explanation"))]
    async fn explain(
        &self,
        port: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<insight::Answer, Error> {
        let _turn = self.context.turn(&self.context.plans, bus, &header).await?;
        let (mut explained, id) = {
            let view = self.context.handle.view();
            let explained = insight::explain(&view, short(port)?)?;
            (explained, view.intent.find_port(port).map(|port| port.id))
        };
        // Without counters it is told all the same.
        if let Ok(id) = id
            && let Ok(Some(counters)) = self.context.counters(id).await
        {
            explained.extend(insight::statistics(&counters)?.remove_entry("drops"));
        }
        Ok(explained)
    }

    #[zbus(out_args("trace"))]
    async fn trace(
        &self,
        packet: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<insight::Answer, Error> {
        value::check_size(&header, 64 * 1024)?;
        let _turn = self.context.turn(&self.context.plans, bus, &header).await?;
        insight::trace(&self.context.handle.view(), &packet)
    }

    #[zbus(out_args("networks"))]
    async fn import_libvirt(
        &self,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<Vec<insight::Answer>, Error> {
        self.context.authorize(bus, &header, Action::ImportNetworks).await?;
        let request: ImportRequest = value::parse(&options)?;
        // Once begun it goes on, whatever becomes of the caller or the bus.
        let work = tokio::spawn(importer::import(self.context.handle.clone(), request));
        let reports = work.await.map_err(|_| Error::Failed("vmfabricd is stopping".into()))??;
        reports.iter().map(insight::answer).collect()
    }

    async fn set_log_level(
        &self,
        level: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> Result<(), Error> {
        self.context.authorize(bus, &header, Action::SetLogLevel).await?;
        self.context.log.set_level(short(level)?).map_err(Error::InvalidArgument)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    // The daemon may change it by itself, on reload.
    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> String {
        self.context.log.level()
    }

    #[zbus(property)]
    fn health(&self) -> String {
        self.info.read(|info| info.health.clone())
    }

    #[zbus(property)]
    fn problems(&self) -> Vec<String> {
        self.info.read(|info| info.problems.clone())
    }

    #[zbus(property)]
    fn libvirt_status(&self) -> String {
        self.info.read(|info| info.libvirt_status.clone())
    }

    #[zbus(property)]
    fn libvirt_detail(&self) -> String {
        self.info.read(|info| info.libvirt_detail.clone())
    }

    #[zbus(property)]
    fn capabilities(&self) -> BTreeMap<String, bool> {
        self.info.read(|info| info.capabilities.clone())
    }

    #[zbus(property)]
    fn networks(&self) -> u32 {
        self.info.read(|info| info.networks)
    }

    #[zbus(property)]
    fn subnets(&self) -> u32 {
        self.info.read(|info| info.subnets)
    }

    #[zbus(property)]
    fn ports(&self) -> u32 {
        self.info.read(|info| info.ports)
    }

    #[zbus(property)]
    fn security_groups(&self) -> u32 {
        self.info.read(|info| info.security_groups)
    }

    #[zbus(property)]
    fn address_groups(&self) -> u32 {
        self.info.read(|info| info.address_groups)
    }

    #[zbus(property)]
    fn attached_ports(&self) -> u32 {
        self.info.read(|info| info.attached_ports)
    }

    #[zbus(property)]
    fn leases(&self) -> u32 {
        self.info.read(|info| info.leases)
    }
}

/// A name or level, which is never long; keeps what cannot be one out of error texts and searches.
fn short(text: &str) -> Result<&str, Error> {
    const MAX: usize = 256;
    match text.len() {
        len if len > MAX => {
            Err(Error::InvalidArgument(format!("{len} bytes are too long for a name; {MAX} are the limit")))
        }
        _ => Ok(text),
    }
}

fn described(lease: &LeaseRecord, view: &View) -> HashMap<&'static str, Variant<'static>> {
    let network = view.intent.network(crate::intent::NetworkId(lease.network));
    HashMap::from([
        ("network", lease.network.to_string().into()),
        ("network_name", network.map(|network| network.name.to_string()).unwrap_or_default().into()),
        ("address", lease.address.to_string().into()),
        ("mac", lease.mac.to_string().into()),
        ("client", lease.client.clone().into()),
        ("iaid", lease.iaid.unwrap_or_default().into()),
        ("prefix_length", lease.prefix_length.unwrap_or_default().into()),
        ("host_name", lease.host_name.clone().unwrap_or_default().into()),
        ("port", lease.port.map(|port| port.to_string()).unwrap_or_default().into()),
        ("expires", view.lease_clock.to_wall(lease.expires).into()),
    ])
}
