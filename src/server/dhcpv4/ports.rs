//! Which port of the bridge a frame came through: the bridge has learnt it before its own stack sees the frame.

use crate::{net::MacAddr, protocol::dhcpv4::Origin};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage},
    neighbour::{NeighbourAttribute, NeighbourMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{
    collections::HashMap,
    io,
    time::{Duration, Instant},
};

/// How long an answer counts: a guest that moves its address to another port is followed after this.
const VALID: Duration = Duration::from_secs(1);
/// Answers that are kept; beyond it all are forgotten.
const KEPT: usize = 4_096;

/// Asks one bridge.
#[derive(Debug)]
pub(in crate::server) struct PortFinder {
    socket: Socket,
    bridge: u32,
    vlan: Option<u16>,
    /// The interface's own address.
    pub(in crate::server) mac: [u8; 6],
    known: HashMap<MacAddr, (Instant, Origin)>,
}

impl PortFinder {
    /// `interface`: the bridge, or a VLAN interface on it, by its index.
    pub(in crate::server) fn open(interface: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut finder = Self { socket, bridge: interface, vlan: None, mac: [0; 6], known: HashMap::new() };
        let mut question = LinkMessage::default();
        question.header.index = interface;
        let Some(RouteNetlinkMessage::NewLink(link)) = finder.ask(RouteNetlinkMessage::GetLink(question))? else {
            return Ok(finder);
        };
        let mut lower = None;
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::Address(mac) => finder.mac = mac.try_into().unwrap_or_default(),
                LinkAttribute::Link(index) => lower = Some(index),
                LinkAttribute::LinkInfo(infos) => finder.vlan = infos.iter().find_map(vlan_of),
                _ => {}
            }
        }
        if let (Some(lower), Some(_)) = (lower, finder.vlan) {
            finder.bridge = lower;
        }
        Ok(finder)
    }

    /// The port that the bridge knows the address behind; where it knows none, the address itself stands for it.
    pub(in crate::server) fn find(&mut self, mac: MacAddr, now: Instant) -> Origin {
        if let Some((at, origin)) = self.known.get(&mac)
            && now.saturating_duration_since(*at) < VALID
        {
            return *origin;
        }
        let origin = self.look_up(mac).ok().flatten().map_or(Origin::mac(mac), Origin::interface);
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        self.known.insert(mac, (now, origin));
        origin
    }

    fn look_up(&mut self, mac: MacAddr) -> io::Result<Option<u32>> {
        let mut question = NeighbourMessage::default();
        question.header.family = AddressFamily::Bridge;
        question.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
        question.attributes.push(NeighbourAttribute::Controller(self.bridge));
        question.attributes.extend(self.vlan.map(NeighbourAttribute::Vlan));
        Ok(match self.ask(RouteNetlinkMessage::GetNeighbour(question))? {
            Some(RouteNetlinkMessage::NewNeighbour(found)) => Some(found.header.ifindex),
            _ => None,
        })
    }

    /// The kernel answers before the question's call returns.
    fn ask(&mut self, question: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = NLM_F_REQUEST;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answer = Vec::with_capacity(8192);
        self.socket.recv(&mut answer, libc::MSG_DONTWAIT)?;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?.payload {
            NetlinkPayload::InnerMessage(answer) => Ok(Some(answer)),
            _ => Ok(None),
        }
    }
}

fn vlan_of(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(parts)) = info else { return None };
    parts.iter().find_map(|part| match part {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}
