//! Real sockets on the loopback interface; `namespaced` has the ones with guests, interfaces and `dig`.

mod namespaced;
mod rig;

use super::*;
use crate::protocol::dns::{Client, Engine, MAX_WAITING_PER_CLIENT, NameSource, Verdict, View};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, RecordType},
};
use proptest::prelude::*;
use rig::{Behaviour, StandIn, ask_tcp, ask_udp, exchange_udp, question, serve, zone};
use std::time::{Duration, Instant};
use tokio::{io::AsyncReadExt, net::TcpStream};

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

#[tokio::test]
async fn answers_for_its_own_names_by_udp_and_tcp() {
    let (server, at, _) = serve(vec![]);
    let question = question("Web.NAT.internal.", RecordType::A);
    for answer in [ask_udp(at, &question).await, ask_tcp(at, &question).await] {
        assert_eq!(addresses(&answer), ["192.168.123.10"]);
        let header = answer.metadata;
        assert!(header.authoritative && header.recursion_available && header.recursion_desired && !header.truncation);
        assert_eq!(answer.queries[0].name.to_ascii(), "Web.NAT.internal.");
        assert_eq!(answer.answers[0].name.to_ascii(), "Web.NAT.internal.");
        assert!(answer.edns.is_none(), "none was asked for");
    }
    let answer = ask_udp(at, &rig::question("none.nat.internal.", RecordType::A)).await;
    assert_eq!(code(&answer), ResponseCode::NXDomain);
    assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    server.stop().await;
}

#[tokio::test]
async fn a_change_is_seen_by_the_next_question() {
    let (_server, at, zone) = serve(vec![]);
    let ask = async || ask_udp(at, &question("new.nat.internal.", RecordType::A)).await;
    assert_eq!(code(&ask().await), ResponseCode::NXDomain);
    let (owner, label) = (Uuid::from_u128(9), "new".parse().expect("label"));
    let address = "192.168.123.99".parse().expect("address");
    zone.update(|z| z.publish(owner, NameSource::Dhcp, label, 0, vec![address])).expect("room");
    assert_eq!(addresses(&ask().await), ["192.168.123.99"]);
    zone.update(|z| z.withdraw_owner(owner));
    assert_eq!(code(&ask().await), ResponseCode::NXDomain);
}

#[tokio::test]
async fn what_does_not_fit_is_marked_and_had_by_tcp() {
    let (_server, at, zone) = serve(vec![]);
    let many = (1..=32).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])).collect();
    let label = "many".parse().expect("label");
    zone.update(|z| z.publish(Uuid::from_u128(9), NameSource::Port, label, 0, many)).expect("room");

    let mut question = question("many.nat.internal.", RecordType::AAAA);
    let cut = ask_udp(at, &question).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(ask_tcp(at, &question).await.answers.len(), 32);

    for (payload, whole) in [(0, false), (600, false), (1232, true), (65_535, true)] {
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_version(0);
        question.set_edns(edns);
        let answer = ask_udp(at, &question).await;
        assert_eq!((answer.metadata.truncation, answer.answers.len()), (!whole, if whole { 32 } else { 0 }));
        assert!(answer.edns.is_some(), "an OPT record earns one");
    }
}

#[tokio::test]
async fn other_names_go_upstream() {
    let upstream = StandIn::start(Behaviour::Answer).await;
    let (_server, at, _) = serve(vec![upstream.address]);
    let mut question = question("WWW.example.com.", RecordType::A);
    question.metadata.checking_disabled = true;
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_version(0).set_dnssec_ok(true);
    question.set_edns(edns);
    for answer in [ask_udp(at, &question).await, ask_tcp(at, &question).await] {
        assert_eq!(addresses(&answer), ["203.0.113.80"]);
        assert_eq!(answer.queries[0].name.to_ascii(), "WWW.example.com.");
        assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
        assert!(answer.metadata.authentic_data, "asked for with DO");
    }
    let seen = upstream.seen();
    assert!(seen.iter().all(|q| q.metadata.checking_disabled && q.metadata.recursion_desired));
    assert!(seen.iter().all(|q| q.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok && e.max_payload() == 1232)));
    assert_ne!(seen[0].metadata.id, question.metadata.id, "an id of its own");
    assert!(ask_udp(at, &rig::question("none.", RecordType::A)).await.answers.is_empty());
    assert_eq!(upstream.seen().len(), 1, "a name without a dot stays here, and what was said is kept");
}

#[tokio::test]
async fn a_truncated_upstream_answer_is_fetched_by_tcp() {
    let upstream = StandIn::start(Behaviour::Truncate { records: 60 }).await;
    let (_server, at, _) = serve(vec![upstream.address]);
    let question = question("big.example.com.", RecordType::A);
    assert_eq!(ask_tcp(at, &question).await.answers.len(), 60);
    let cut = ask_udp(at, &question).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
}

#[tokio::test]
async fn forged_answers_are_ignored() {
    let upstream = StandIn::start(Behaviour::Forge).await;
    let (_server, at, _) = serve(vec![upstream.address]);
    let answer = ask_udp(at, &question("www.example.com.", RecordType::A)).await;
    assert_eq!(addresses(&answer), ["203.0.113.80"]);
}

#[tokio::test]
async fn the_next_upstream_answers_when_one_does_not() {
    let good = StandIn::start(Behaviour::Answer).await;
    let nobody = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.local_addr().expect("address")
    };
    for bad in [
        nobody,
        StandIn::start(Behaviour::Code(ResponseCode::ServFail)).await.address,
        StandIn::start(Behaviour::Code(ResponseCode::Refused)).await.address,
    ] {
        let (_server, at, _) = serve(vec![bad, good.address]);
        let began = Instant::now();
        let answer = ask_udp(at, &question("www.example.com.", RecordType::A)).await;
        assert_eq!(addresses(&answer), ["203.0.113.80"]);
        assert!(began.elapsed() < Duration::from_secs(3), "not after the upstream's time is up");
    }
}

#[tokio::test]
async fn a_silent_upstream_costs_one_question_a_second_and_the_next_nothing() {
    let (good, silent) = (StandIn::start(Behaviour::Answer).await, StandIn::start(Behaviour::Silent).await);
    let (_server, at, _) = serve(vec![silent.address, good.address]);
    let question = question("www.example.com.", RecordType::A);
    assert_eq!(addresses(&ask_udp(at, &question).await), ["203.0.113.80"]);
    assert_eq!(silent.seen().len(), 1);
    assert_eq!(addresses(&ask_udp(at, &question).await), ["203.0.113.80"]);
    assert_eq!(silent.seen().len(), 1, "it is avoided for a while");
}

#[tokio::test]
async fn nxdomain_counts_as_an_answer_and_a_last_refusal_is_passed_on() {
    let good = StandIn::start(Behaviour::Answer).await;
    let negative = StandIn::start(Behaviour::Code(ResponseCode::NXDomain)).await;
    let refusing = StandIn::start(Behaviour::Code(ResponseCode::Refused)).await;
    let (_server, at, _) = serve(vec![negative.address, good.address]);
    let question = question("www.example.com.", RecordType::A);
    assert_eq!(code(&ask_udp(at, &question).await), ResponseCode::NXDomain);
    let (_server, at, _) = serve(vec![refusing.address]);
    assert_eq!(code(&ask_udp(at, &question).await), ResponseCode::Refused);
}

#[tokio::test]
async fn it_does_not_ask_itself() {
    let upstreams = Upstreams::new(UpstreamSource::Fixed(vec![]));
    let server = rig::start_on_free_port(&SharedZone::new(zone()), &upstreams);
    let at = server.addresses()[0];
    upstreams.set_source(UpstreamSource::Fixed(vec![at]));
    assert_eq!(upstreams.servers(), []);
    let answer = ask_udp(at, &question("www.example.com.", RecordType::A)).await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    server.stop().await;
    assert_eq!(upstreams.servers(), [at], "whoever has that port now may be asked");
}

#[tokio::test]
async fn upstreams_follow_the_hosts_resolv_conf() {
    let good = StandIn::start(Behaviour::Answer).await;
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 127.0.0.53\nnameserver 192.0.2.1\n").expect("write");
    let source = UpstreamSource::ResolvConf { path: path.clone(), resolved: dir.path().join("none") };
    let upstreams = Upstreams::new(source);
    assert_eq!(upstreams.servers().len(), 2);
    std::fs::write(&path, "nameserver 192.0.2.7\n").expect("write");
    let deadline = Instant::now() + Duration::from_secs(5);
    while upstreams.servers() != ["192.0.2.7:53".parse().expect("address")] {
        assert!(Instant::now() < deadline, "the change is not seen");
        tokio::task::yield_now().await;
    }
    upstreams.set_source(UpstreamSource::Fixed(vec![good.address]));
    assert_eq!(upstreams.servers(), [good.address]);
}

#[tokio::test]
async fn one_guest_cannot_take_all_forwarding() {
    let silent = StandIn::start(Behaviour::Silent).await;
    let (_server, at, _) = serve(vec![silent.address]);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.connect(at).await.expect("connect");
    let began = Instant::now();
    for n in 0..MAX_WAITING_PER_CLIENT + 8 {
        let question = question(&format!("w{n}.example.com."), RecordType::A).to_vec().expect("encodes");
        socket.send(&question).await.expect("send");
    }
    let mut buffer = [0; 512];
    for _ in 0..8 {
        let len = socket.recv(&mut buffer).await.expect("refused at once");
        assert_eq!(code(&Message::from_vec(&buffer[..len]).expect("answer")), ResponseCode::ServFail);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "before the upstream's time is up");
    let own = ask_udp(at, &question("web.nat.internal.", RecordType::A)).await;
    assert_eq!(addresses(&own), ["192.168.123.10"], "its own names are answered all the same");
}

#[tokio::test]
async fn one_guest_cannot_take_all_connections() {
    let (_server, at, _) = serve(vec![]);
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS_PER_CLIENT {
        open.push(TcpStream::connect(at).await.expect("connect"));
    }
    let mut beyond = TcpStream::connect(at).await.expect("the kernel accepts");
    assert!(matches!(beyond.read(&mut [0; 1]).await, Ok(0) | Err(_)), "closed at once");
    open.clear();
    let deadline = Instant::now() + Duration::from_secs(5);
    while rig::try_tcp(at, &question("web.nat.internal.", RecordType::A)).await.is_err() {
        assert!(Instant::now() < deadline, "the slots are not free again");
    }
}

#[tokio::test]
async fn a_taken_port_is_told_with_what_to_do() {
    let (server, at, _) = serve(vec![]);
    let upstreams = Upstreams::new(UpstreamSource::Fixed(vec![]));
    let start = || rig::start(rig::listen(at.port()), &SharedZone::new(zone()), &upstreams);
    let error = start().expect_err("it is taken");
    assert!(matches!(error, ServeError::PortTaken { .. }), "{error:?}");
    assert!(error.to_string().contains("at 127.0.0.1 on lo is taken"), "{error}");
    server.stop().await;
    // Unless another program drew it for a moment.
    let deadline = Instant::now() + Duration::from_secs(5);
    while start().is_err() {
        assert!(Instant::now() < deadline, "the port is not free again");
    }

    let gone = DnsListen { interface: "vmf-none".parse().expect("name"), ..rig::listen(0) };
    let error = rig::start(gone, &SharedZone::new(zone()), &upstreams).expect_err("no such interface");
    assert!(matches!(error, ServeError::NoInterface { .. }), "{error:?}");
}

#[tokio::test]
async fn addresses_need_not_be_up() {
    let listen = DnsListen { addresses: vec!["192.0.2.53".parse().expect("address")], ..rig::listen(0) };
    let upstreams = Upstreams::new(UpstreamSource::Fixed(vec![]));
    let server = rig::start(listen, &SharedZone::new(zone()), &upstreams).expect("bound");
    assert_eq!(server.addresses()[0].ip(), server.listen().addresses[0]);
    server.stop().await;
}

#[tokio::test]
async fn bad_messages_get_the_code_they_earn() {
    let (_server, at, _) = serve(vec![]);
    let mut strange = question("web.nat.internal.", RecordType::A);
    for op_code in [OpCode::Status, OpCode::Notify, OpCode::Unknown(7)] {
        strange.metadata.op_code = op_code;
        assert_eq!(code(&ask_udp(at, &strange).await), ResponseCode::NotImp);
    }
    let mut cut = question("web.nat.internal.", RecordType::A).to_vec().expect("encodes");
    cut.truncate(20);
    let answer = exchange_udp(at, &cut).await;
    assert_eq!((answer.metadata.id, code(&answer)), (4711, ResponseCode::FormErr));
    let answer = rig::exchange_tcp(at, &cut).await.expect("answer");
    assert_eq!((answer.metadata.id, code(&answer)), (4711, ResponseCode::FormErr));
    // The question's name is a pointer into the header.
    let mut pointing = question("a.", RecordType::A).to_vec().expect("encodes");
    pointing.splice(12..15, [0xc0, 2]);
    for answer in [exchange_udp(at, &pointing).await, rig::exchange_tcp(at, &pointing).await.expect("answer")] {
        assert_eq!((code(&answer), answer.queries.len()), (ResponseCode::FormErr, 0));
    }
    let mut edns = Edns::new();
    edns.set_version(1);
    let mut newer = question("web.nat.internal.", RecordType::A);
    newer.set_edns(edns);
    // BADVERS and BADSIG share a number.
    assert_eq!(u16::from(code(&ask_udp(at, &newer).await)), u16::from(ResponseCode::BADVERS));
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120),
        sane in any::<bool>(),
        udp in any::<bool>(),
    ) {
        // Half of them a question by their header, so that more than the header is read.
        if sane && bytes.len() > 12 {
            bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        let zone = zone();
        let (policy, mut out) = (Policy::default(), Vec::new());
        let view = View { zone: &zone, visible: &[], policy: &policy, zones_only: false };
        let client = Client { address: IpAddr::from([127, 0, 0, 1]), udp };
        let mut engine = Engine::<()>::new(Budget::default());
        let id = bytes.first_chunk().copied().map(u16::from_be_bytes);
        let verdict = engine.query(Duration::from_secs(1), &view, client, &bytes, &mut out, || ());
        if verdict == Verdict::Answer {
            prop_assert!(!udp || out.len() <= 1232);
            let answer = Message::from_vec(&out).expect("a readable answer");
            prop_assert_eq!(Some(answer.metadata.id), id);
            prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
        }
    }
}

#[test]
fn the_rig_answers_as_it_should() {
    let name = Name::from_ascii("www.example.com.").expect("name");
    let data = RData::A(std::net::Ipv4Addr::new(203, 0, 113, 80).into());
    let made = rig::answer(&question("www.example.com.", RecordType::A), 1);
    assert_eq!((made.answers[0].name.clone(), made.answers[0].data.clone()), (name, data));
}
