use super::NetworkServices;
use crate::{libvirt::publish::PublishedNetwork, planner::Problem};
use std::{collections::BTreeSet, future::Future};
use uuid::Uuid;

/// What the loop drives besides the kernel: the DHCP and DNS servers, libvirt, and the index that the hook reads when
/// the daemon is dead.
pub trait Outlets: Send + 'static {
    /// Brings the DHCP and DNS servers of these networks up to date. Gives what is wrong with the servers of any
    /// network now.
    fn serve(&mut self, services: Vec<NetworkServices>) -> impl Future<Output = Vec<Problem>> + Send;

    /// Offers these networks to libvirt, and takes back those of `earlier` that are not among them. Answered by an
    /// event; must not wait.
    fn publish(&mut self, wanted: Vec<PublishedNetwork>, earlier: BTreeSet<Uuid>);

    /// Asks libvirt for all domains. Must not wait.
    fn refresh(&mut self);

    /// Asks libvirt for one domain. Must not wait.
    fn refresh_domain(&mut self, domain: Uuid);

    /// Writes what the hook must know.
    fn write_index(&mut self, index: &super::HookIndex) -> std::io::Result<()>;
}
