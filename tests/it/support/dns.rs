//! A tiny DNS server: it answers A and AAAA over UDP and TCP with what a test wants.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// What the server says to one question.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// These addresses (those of the family that was asked for), behind these names, with a TTL of zero.
    Addresses { chain: Vec<String>, addresses: Vec<IpAddr> },
    /// These bytes behind the id of the question.
    Raw(Vec<u8>),
    /// Over UDP only that it was cut off; over TCP the addresses.
    Truncated(Vec<IpAddr>),
    /// Nothing at all.
    Silence,
}

impl Answer {
    pub(crate) fn addresses(addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        Self::Addresses { chain: Vec::new(), addresses }
    }
}

/// A DNS server on a loopback port of its own; ends when dropped.
#[derive(Debug)]
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    queries: Arc<Mutex<Vec<(String, u16)>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Dns {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

const A: u16 = 1;
const AAAA: u16 = 28;

impl Dns {
    /// Answers each question with what `say` gives for its name (without the final dot) and the number of earlier
    /// questions of that name and type.
    pub(crate) async fn start(say: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        // UDP and TCP share the port number; another test may hold one of the two.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("its address")).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("its address");
        let queries = Arc::new(Mutex::new(Vec::new()));
        let answer = {
            let queries = Arc::clone(&queries);
            Arc::new(move |question: &[u8], is_tcp| respond(question, is_tcp, &queries, &say))
        };
        let over_tcp = Arc::clone(&answer);
        let udp = tokio::spawn(async move {
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                if let Some(reply) = answer(&buffer[..length], false) {
                    let _ = udp.send_to(&reply, from).await;
                }
            }
        });
        let tcp = tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                while let Ok(length) = stream.read_u16().await {
                    let mut question = vec![0; usize::from(length)];
                    if stream.read_exact(&mut question).await.is_err() {
                        break;
                    }
                    let Some(reply) = over_tcp(&question, true) else { continue };
                    let length = u16::try_from(reply.len()).expect("a message of at most 64 KiB");
                    let _ = stream.write_u16(length).await;
                    let _ = stream.write_all(&reply).await;
                }
            }
        });
        Self { address, queries, tasks: [udp, tcp] }
    }

    /// The names that were asked for, each with its type.
    pub(crate) fn queries(&self) -> Vec<(String, u16)> {
        self.queries.lock().unwrap().clone()
    }

    /// How often the IPv4 address of `name` was asked for.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.queries().iter().filter(|query| **query == (name.to_owned(), A)).count()
    }
}

fn respond(
    question: &[u8],
    is_tcp: bool,
    queries: &Mutex<Vec<(String, u16)>>,
    say: &(dyn Fn(&str, usize) -> Answer + Send + Sync),
) -> Option<Vec<u8>> {
    let (name, end) = read_name(question)?;
    let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
    let asked = &question[12..end + 4];
    let answer = {
        let mut queries = queries.lock().unwrap();
        let before = queries.iter().filter(|query| **query == (name.clone(), kind)).count();
        queries.push((name.clone(), kind));
        say(&name, before)
    };
    let message = |flags: u16, count: u16, records: &[u8]| {
        let mut bytes = question[..2].to_vec();
        for word in [flags, 1, count, 0, 0] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(asked);
        bytes.extend(records);
        bytes
    };
    match answer {
        Answer::Silence => None,
        Answer::Raw(bytes) => Some([&question[..2], &bytes].concat()),
        Answer::Truncated(_) if !is_tcp => Some(message(0x8380, 0, &[])),
        Answer::Truncated(addresses) => {
            let (count, records) = records(&name, &[], &addresses, kind);
            Some(message(0x8180, count, &records))
        }
        Answer::Addresses { chain, addresses } => {
            let (count, records) = records(&name, &chain, &addresses, kind);
            let whole = message(0x8180, count, &records);
            // What does not fit is cut off, as a real server does.
            if is_tcp || whole.len() <= 1_232 { Some(whole) } else { Some(message(0x8380, 0, &[])) }
        }
    }
}

fn records(name: &str, chain: &[String], addresses: &[IpAddr], kind: u16) -> (u16, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut count = 0;
    let mut record = |owner: &[u8], kind: u16, data: &[u8]| {
        bytes.extend(owner);
        for word in [kind, 1, 0, 0] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(u16::try_from(data.len()).expect("short data").to_be_bytes());
        bytes.extend(data);
        count += 1;
    };
    let mut owner = name;
    for link in chain {
        record(&write_name(owner), 5, &write_name(link));
        owner = link;
    }
    // A pointer to the question keeps 4,000 records within one message.
    let owner = if chain.is_empty() { vec![0xc0, 12] } else { write_name(owner) };
    for address in addresses {
        match address {
            IpAddr::V4(v4) if kind == A => record(&owner, A, &v4.octets()),
            IpAddr::V6(v6) if kind == AAAA => record(&owner, AAAA, &v6.octets()),
            _ => {}
        }
    }
    (count, bytes)
}

fn write_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

/// The name of the question, and where it ends.
fn read_name(message: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}
