//! Names, addresses, and what is dialled.
//!
//! `127.0.0.2` plays an admitted server, `127.0.0.1` what must never be dialled.

use gitmoor::outbound::Step;

use super::certificates::Authority;
use super::*;
use crate::support::dns::{Answer, Dns};

const ADMITTED: &str = "127.0.0.2/32";

/// A TLS server for `git.test` at 127.0.0.2, the CA to trust it, and a trap at 127.0.0.1 with the same port.
async fn server(then: Then) -> (Server, String, Server) {
    let authority = Authority::new();
    loop {
        let server =
            Server::start_tls("127.0.0.2:0", authority.server(&["git.test", "localhost"]), move |_, _| Say {
                then,
                ..Say::answer("200 OK", "", "ok")
            })
            .await;
        let trap = format!("127.0.0.1:{}", server.port());
        // Another test may hold the port at the other address.
        if std::net::TcpListener::bind(&trap).is_ok() {
            let trap = Server::start_tls(&trap, authority.server(&["git.test", "localhost"]), |_, _| {
                Say::answer("200 OK", "", "trap")
            })
            .await;
            return (server, authority.pem(), trap);
        }
    }
}

/// Sends a GET to `host` at the port of `server`.
async fn get_by_name(
    outbound: &Outbound,
    host: &str,
    server: &Server,
    ca_pem: &str,
) -> Result<(u16, Bytes), TransportError> {
    let url = format!("https://{host}:{}", server.port());
    let transport = transport(outbound, &url, ca_pem)?;
    read(transport.send(request(Method::GET, &format!("{url}/x"), 60)).await?).await
}

fn is_denied<T>(result: &Result<T, TransportError>) -> bool {
    matches!(result, Err(TransportError::Denied { .. }))
}

const OK: Result<(u16, Bytes), TransportError> = Ok((200, Bytes::from_static(b"ok")));
const NO_NAME: TransportError = TransportError::Unreachable { phase: Phase::Dns };

#[tokio::test]
async fn d01_a_name_of_loopback_is_refused() {
    let dns = Dns::start(|_, _| Answer::addresses(&["127.0.0.1"])).await;
    let (server, ca, trap) = server(Then::Stay).await;
    let result = get_by_name(&outbound(&[], Some(dns.address)), "git.test", &server, &ca).await;
    assert!(is_denied(&result), "{result:?}");
    assert!(!format!("{result:?}").contains("127.0.0.1"), "the address is told: {result:?}");
    assert_eq!((server.connections(), trap.connections()), (0, 0));
}

#[tokio::test]
async fn d03_one_denied_address_refuses_all() {
    for answers in [["127.0.0.2", "::1"], ["1.1.1.1", "::1"], ["1.1.1.1", "10.0.0.1"]] {
        let dns = Dns::start(move |_, _| Answer::addresses(&answers)).await;
        let (server, ca, _trap) = server(Then::Stay).await;
        let outbound = outbound(&[ADMITTED.to_owned()], Some(dns.address));
        assert!(is_denied(&get_by_name(&outbound, "git.test", &server, &ca).await), "{answers:?}");
        assert_eq!(server.connections(), 0);
    }
}

#[tokio::test]
async fn d04_d06_a_name_is_asked_and_checked_at_each_dial() {
    let dns =
        Dns::start(|_, before| Answer::addresses(if before == 0 { &["127.0.0.2"] } else { &["127.0.0.1"] }))
            .await;
    let (server, ca, trap) = server(Then::Close).await;
    let outbound = outbound(&[ADMITTED.to_owned()], Some(dns.address));
    assert_eq!(get_by_name(&outbound, "git.test", &server, &ca).await, OK);
    assert_eq!(dns.asked("git.test"), 1, "one question for one dial");
    // The connection was closed, so the second call dials again, and hears of loopback.
    assert!(is_denied(&get_by_name(&outbound, "git.test", &server, &ca).await));
    assert_eq!((dns.asked("git.test"), server.connections(), trap.connections()), (2, 1, 0));
}

#[tokio::test]
async fn d07_a_chain_of_names_is_bounded_and_checked() {
    let link = |at| format!("link{at}.test");
    let chains: [(Vec<String>, bool); 4] = [
        ((0..3).map(link).collect(), true),
        ((0..8).map(link).collect(), true),
        ((0..20).map(link).collect(), false),
        (vec![link(0), "metadata.google.internal".to_owned()], false),
    ];
    for (chain, works) in chains {
        let links = chain.clone();
        let dns = Dns::start(move |_, _| Answer::Addresses {
            chain: links.clone(),
            addresses: vec!["127.0.0.2".parse().expect("an address")],
        })
        .await;
        let (server, ca, _trap) = server(Then::Stay).await;
        let outbound = outbound(&[ADMITTED.to_owned()], Some(dns.address));
        let result = get_by_name(&outbound, "git.test", &server, &ca).await;
        assert_eq!(result.is_ok(), works, "{chain:?} {result:?}");
        assert_eq!(server.connections(), usize::from(works));
    }
}

#[tokio::test]
async fn d09_d10_a_network_is_admitted_but_not_the_service_itself() {
    let dns = Dns::start(|_, _| Answer::addresses(&["127.0.0.2"])).await;
    let (server, ca, _trap) = server(Then::Close).await;
    for own in [None, Some(server.address), Some(SocketAddr::from(([0, 0, 0, 0], server.port())))] {
        let outbound = outbound(&["127.0.0.0/8".to_owned()], Some(dns.address));
        outbound.deny_own(own.as_slice());
        let by_name = get_by_name(&outbound, "git.test", &server, &ca).await;
        assert_eq!((by_name == OK, is_denied(&by_name)), (own.is_none(), own.is_some()), "{own:?}");
        let literal = Url::parse(&format!("https://{}", server.address)).expect("a URL");
        assert_eq!(outbound.admit(&literal).is_ok(), own.is_none(), "{own:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn d12_answers_are_bounded() {
    let loops = |_: &str, _| {
        // One record whose name is a pointer to itself.
        let mut bytes = vec![0x81, 0x80, 0, 0, 0, 1, 0, 0, 0, 0];
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 2]);
        Answer::Raw(bytes)
    };
    let many = |_: &str, _| Answer::Addresses {
        chain: Vec::new(),
        addresses: (0..4_000_u32).map(|at| std::net::Ipv4Addr::from_bits(0x0101_0000 + at).into()).collect(),
    };
    for dns in [Dns::start(loops).await, Dns::start(many).await] {
        let (server, ca, _trap) = server(Then::Stay).await;
        let outbound = outbound(&[ADMITTED.to_owned()], Some(dns.address));
        assert_eq!(get_by_name(&outbound, "git.test", &server, &ca).await, Err(NO_NAME));
    }
    let dns = Dns::start(|_, _| Answer::Truncated(vec!["127.0.0.2".parse().expect("an address")])).await;
    let (server, ca, _trap) = server(Then::Stay).await;
    let outbound = outbound(&[ADMITTED.to_owned()], Some(dns.address));
    assert_eq!(get_by_name(&outbound, "git.test", &server, &ca).await, OK);
}

#[tokio::test(start_paused = true)]
async fn d13_a_silent_dns_server_costs_five_seconds() {
    let dns = Dns::start(|_, _| Answer::Silence).await;
    let outbound = outbound(&[], Some(dns.address));
    let url = Url::parse("https://git.test/").expect("a URL");
    for (deadline, at_most) in [(60, 5), (2, 2)] {
        let start = Instant::now();
        let probe = outbound.probe(&url, "", start + Duration::from_secs(deadline)).await;
        assert_eq!(probe.dns, Step::Failed(NO_NAME));
        assert_eq!(probe.connect, Step::NotReached);
        assert!(start.elapsed() <= Duration::from_secs(at_most), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn d15_u43_names_are_whole_and_local_ones_are_not_asked() {
    let dns = Dns::start(|_, _| Answer::addresses(&[])).await;
    let (server, ca, trap) = server(Then::Stay).await;
    let outbound = outbound(&[], Some(dns.address));
    assert_eq!(get_by_name(&outbound, "git", &server, &ca).await, Err(NO_NAME));
    assert!(dns.queries().iter().all(|(name, _)| name == "git"), "{:?}", dns.queries());
    let before = dns.queries().len();
    for name in
        ["localhost", "git.default.svc", "git.svc.cluster.local", "metadata.google.internal", "instance-data"]
    {
        assert!(is_denied(&get_by_name(&outbound, name, &server, &ca).await), "{name}");
    }
    assert_eq!((dns.queries().len(), trap.connections()), (before, 0));
    // A host that the operator lists by its name is taken from the host file as well.
    let listed = super::outbound(&["localhost".to_owned()], Some(dns.address));
    let result = get_by_name(&listed, "localhost", &server, &ca).await;
    assert_eq!(result, Ok((200, Bytes::from_static(b"trap"))));
    assert_eq!(dns.queries().len(), before);
}

#[tokio::test]
async fn d16_special_addresses_as_answers_are_refused() {
    for address in [
        "100.64.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "224.0.0.1",
        "240.0.0.1",
        "0.1.2.3",
        "169.254.169.254",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fd00:ec2::254",
        "fe80::1",
    ] {
        let dns = Dns::start(move |_, _| Answer::addresses(&[address])).await;
        let outbound = outbound(&[], Some(dns.address));
        let url = Url::parse("https://git.test/").expect("a URL");
        let probe = outbound.probe(&url, "", Instant::now() + Duration::from_secs(20)).await;
        assert!(matches!(probe.dns, Step::Failed(TransportError::Denied { .. })), "{address}: {probe:?}");
    }
}

#[tokio::test]
async fn u40_a_metadata_service_is_admitted_only_by_its_address() {
    let url = Url::parse("https://[fd00:ec2::254]/").expect("a URL");
    for (rule, admitted) in [
        ("fd00::/8", false),
        ("::/0", false),
        ("fd00:ec2::254/128", true),
        ("fd00:ec2::254", true),
        ("[fd00:ec2::254]:443", true),
    ] {
        assert_eq!(outbound(&[rule.to_owned()], None).admit(&url).is_ok(), admitted, "{rule}");
    }
    let nat64 = Url::parse("https://[64:ff9b::a9fe:a9fe]/").expect("a URL");
    assert!(outbound(&["64:ff9b::/96".to_owned()], None).admit(&nat64).is_err());
    let public = Url::parse("https://[64:ff9b::101:101]/").expect("a URL");
    assert!(outbound(&["64:ff9b::/96".to_owned()], None).admit(&public).is_ok());
}
