//! A server on the loopback interface, a client, and a stand-in for an upstream resolver.

use super::super::*;
use crate::protocol::dns::{NameSource, Zone};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use std::{net::Ipv4Addr, sync::Mutex, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(8);
const TRIES: usize = 50;

pub fn zone() -> Zone {
    let ip = |text: &str| text.parse::<IpAddr>().expect("address");
    // The tests' clients are on the loopback interface.
    let prefixes = ["192.168.123.0/24", "127.0.0.0/8"].map(|prefix| prefix.parse().expect("prefix"));
    let domain = "nat.internal".parse().expect("domain");
    let mut zone = Zone::new(Uuid::nil(), domain, prefixes, [ip("192.168.123.1")]).expect("zone");
    let label = "web".parse().expect("label");
    zone.publish(Uuid::from_u128(1), NameSource::Dhcp, label, 0, vec![ip("192.168.123.10")]).expect("room");
    zone
}

pub fn listen(port: u16) -> DnsListen {
    DnsListen {
        network: Uuid::nil(),
        interface: "lo".parse().expect("name"),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        port,
    }
}

pub fn serve(upstreams: Vec<SocketAddr>) -> (DnsServer, SocketAddr, SharedZone) {
    let zone = SharedZone::new(zone());
    let upstreams = Upstreams::new(UpstreamSource::Fixed(upstreams));
    let server = start_on_free_port(&zone, &upstreams);
    let at = server.addresses()[0];
    (server, at, zone)
}

pub fn start(listen: DnsListen, zone: &SharedZone, upstreams: &Arc<Upstreams>) -> Result<DnsServer, ServeError> {
    DnsServer::start(listen, zone.clone(), DnsScope::default(), DnsShared::new(upstreams.clone()).expect("a thread"))
}

/// The kernel gives a port that is free for UDP; somebody may have it for TCP just then.
pub fn start_on_free_port(zone: &SharedZone, upstreams: &Arc<Upstreams>) -> DnsServer {
    (0..TRIES).find_map(|_| start(listen(0), zone, upstreams).ok()).expect("a port that is free for both")
}

pub fn question(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("name"), record_type));
    message
}

pub async fn ask_udp(at: SocketAddr, question: &Message) -> Message {
    exchange_udp(at, &question.to_vec().expect("encodes")).await
}

pub async fn exchange_udp(at: SocketAddr, question: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.connect(at).await.expect("connect");
    socket.send(question).await.expect("send");
    let mut buffer = [0; 4096];
    let len = timeout(DEADLINE, socket.recv(&mut buffer)).await.expect("an answer in time").expect("receive");
    Message::from_vec(&buffer[..len]).expect("a readable answer")
}

pub async fn ask_tcp(at: SocketAddr, question: &Message) -> Message {
    try_tcp(at, question).await.expect("an answer")
}

pub async fn try_tcp(at: SocketAddr, question: &Message) -> io::Result<Message> {
    exchange_tcp(at, &question.to_vec().expect("encodes")).await
}

pub async fn exchange_tcp(at: SocketAddr, question: &[u8]) -> io::Result<Message> {
    let exchange = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_u16(question.len() as u16).await?;
        stream.write_all(question).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok(Message::from_vec(&answer).expect("a readable answer"))
    };
    timeout(DEADLINE, exchange).await.expect("an answer in time")
}

/// What the stand-in does with a question.
#[derive(Debug, Clone, Copy)]
pub enum Behaviour {
    /// 203.0.113.80, whatever is asked.
    Answer,
    Silent,
    Code(ResponseCode),
    /// By UDP a truncated answer whose body cannot be read, by TCP all of it.
    Truncate {
        records: u8,
    },
    /// First answers with another id, to another question, and not an answer at all; then the true one.
    Forge,
}

pub struct StandIn {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
    _tasks: JoinSet<()>,
}

impl StandIn {
    pub async fn start(behaviour: Behaviour) -> Self {
        let (udp, tcp) = both_on_free_port().await;
        let address = udp.local_addr().expect("address");
        let seen = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(by_udp(udp, behaviour, Arc::clone(&seen)));
        tasks.spawn(by_tcp(tcp, behaviour));
        Self { address, seen, _tasks: tasks }
    }

    /// The questions that came by UDP.
    pub fn seen(&self) -> Vec<Message> {
        self.seen.lock().expect("no panic").clone()
    }
}

async fn both_on_free_port() -> (UdpSocket, TcpListener) {
    for _ in 0..TRIES {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("address")).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

async fn by_udp(socket: UdpSocket, behaviour: Behaviour, seen: Arc<Mutex<Vec<Message>>>) {
    let mut buffer = [0; 4096];
    while let Ok((len, peer)) = socket.recv_from(&mut buffer).await {
        let question = Message::from_vec(&buffer[..len]).expect("a readable question");
        seen.lock().expect("no panic").push(question.clone());
        for bytes in replies(&question, behaviour) {
            socket.send_to(&bytes, peer).await.expect("send");
        }
    }
}

fn replies(question: &Message, behaviour: Behaviour) -> Vec<Vec<u8>> {
    let good = answer(question, 1);
    let messages = match behaviour {
        Behaviour::Silent => vec![],
        Behaviour::Answer => vec![good],
        Behaviour::Code(code) => {
            let mut message = answer(question, 0);
            message.metadata.response_code = code;
            vec![message]
        }
        Behaviour::Truncate { .. } => {
            let mut cut = answer(question, 0);
            cut.metadata.truncation = true;
            let mut bytes = cut.to_vec().expect("encodes");
            bytes[7] = 9;
            return vec![bytes];
        }
        Behaviour::Forge => {
            let mut other_id = answer(question, 3);
            other_id.metadata.id ^= 1;
            let mut elsewhere = question.clone();
            elsewhere.queries[0].name = Name::from_ascii("evil.example.com.").expect("name");
            let other_question = answer(&elsewhere, 3);
            vec![question.clone(), other_id, other_question, good]
        }
    };
    messages.iter().map(|m| m.to_vec().expect("encodes")).collect()
}

async fn by_tcp(listener: TcpListener, behaviour: Behaviour) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut bytes = vec![0; usize::from(stream.read_u16().await.expect("length"))];
        stream.read_exact(&mut bytes).await.expect("question");
        let question = Message::from_vec(&bytes).expect("a readable question");
        let records = if let Behaviour::Truncate { records } = behaviour { records } else { 1 };
        let bytes = answer(&question, records).to_vec().expect("encodes");
        stream.write_u16(bytes.len() as u16).await.expect("write");
        stream.write_all(&bytes).await.expect("write");
    }
}

pub fn answer(question: &Message, records: u8) -> Message {
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.metadata.authoritative = true;
    message.metadata.authentic_data = true;
    message.add_queries(question.queries.clone());
    for n in 0..records {
        let data = RData::A(Ipv4Addr::new(203, 0, 113, 80 + n).into());
        message.add_answer(Record::from_rdata(question.queries[0].name.clone(), 60, data));
    }
    message
}
