//! The way out, over real sockets: groups U, D and H of the hostile inputs, as far as they live below JSON.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use gitmoor::domain::base_url::BaseUrl;
use gitmoor::domain::violation::FieldReason;
use gitmoor::outbound::{
    AllowRule, Deadline, Outbound, OutboundConfig, Phase, Redirects, Target, Transport, TransportError,
};
use http::{HeaderValue, Method, Request, Response};
use tokio::time::Instant;
use url::Url;

use crate::support::wire::{Say, Server, Then};

mod certificates;
mod dialling;
mod hostile;

/// A way out that admits `allow`, and asks `dns` for names.
fn outbound(allow: &[String], dns: Option<SocketAddr>) -> Outbound {
    let allow = allow.iter().map(|rule| AllowRule::parse(rule).expect("a rule")).collect();
    // Without a server of the test's, nobody answers: no test asks the machine's own.
    let dns_server = dns.or(Some(SocketAddr::from(([127, 0, 0, 1], 9))));
    Outbound::new(OutboundConfig { allow, dns_server, ..OutboundConfig::default() }).expect("a way out")
}

/// The stack towards `url`, with a quick attempt.
fn transport(outbound: &Outbound, url: &str, ca_pem: &str) -> Result<Transport, TransportError> {
    outbound.transport(Target {
        origin: Url::parse(url).expect("a URL"),
        ca_certificates_pem: ca_pem.to_owned(),
        account: "connection".to_owned(),
        attempt_timeout: Duration::from_secs(10),
        concurrency: 4,
    })
}

/// The stack towards a plain server on loopback.
fn plain(server: &Server) -> Transport {
    let url = format!("http://{}", server.address);
    transport(&outbound(std::slice::from_ref(&url), None), &url, "").expect("admitted")
}

fn request(method: Method, url: &str, seconds: u64) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().expect("a URI");
    request.extensions_mut().insert(Deadline(Instant::now() + Duration::from_secs(seconds)));
    request.extensions_mut().insert(Redirects::Follow);
    let mut token = HeaderValue::from_static("canary-token");
    token.set_sensitive(true);
    request.headers_mut().insert("private-token", token);
    request
}

/// Sends a GET of `/x` and reads the answer.
async fn get(transport: &Transport, server: &Server) -> Result<(u16, Bytes), TransportError> {
    let url = format!("http://{}/x", server.address);
    read(transport.send(request(Method::GET, &url, 20)).await?).await
}

async fn read(response: Response<gitmoor::outbound::Body>) -> Result<(u16, Bytes), TransportError> {
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect(1 << 20).await?))
}

fn is_garbled<T>(result: &Result<T, TransportError>) -> bool {
    matches!(result, Err(TransportError::Garbled { .. }))
}

const READ: TransportError = TransportError::Unreachable { phase: Phase::Read };

#[tokio::test]
async fn an_answer_comes_back() {
    let server = Server::start(|_, _| Say::answer("200 OK", "x-answer: yes\r\n", "hello")).await;
    let transport = plain(&server);
    assert_eq!(get(&transport, &server).await, Ok((200, Bytes::from_static(b"hello"))));
    assert_eq!(get(&transport, &server).await, Ok((200, Bytes::from_static(b"hello"))));
    assert_eq!(server.connections(), 1, "the connection is used again");
    let requests = server.requests();
    assert!(requests[0].starts_with("GET /x HTTP/1.1\r\n"), "{}", requests[0]);
    assert!(requests[0].contains("private-token: canary-token"));
}

#[tokio::test]
async fn u_rows_of_the_policy_have_their_reasons() {
    let outbound = outbound(&[], None);
    let reason = |text: &str| {
        let url = match BaseUrl::parse(text) {
            Ok(url) => url,
            Err(refusal) => return Some(refusal.reason),
        };
        outbound.admit(url.url()).err().map(|refusal| refusal.reason)
    };
    for (text, expected) in [
        ("http://git.corp.test", FieldReason::UrlSchemeForbidden),
        ("https://git.test:0/", FieldReason::UrlPortForbidden),
        ("https://git.test:22/", FieldReason::UrlPortForbidden),
        ("https://git.test:80/", FieldReason::UrlPortForbidden),
        ("https://2130706433/", FieldReason::EndpointNotAllowed),
        ("https://0x7f000001/", FieldReason::EndpointNotAllowed),
        ("https://127.1/", FieldReason::EndpointNotAllowed),
        ("https://127.0.0.1/", FieldReason::EndpointNotAllowed),
        ("https://0.0.0.0/", FieldReason::EndpointNotAllowed),
        ("https://10.0.0.1/", FieldReason::EndpointNotAllowed),
        ("https://[::1]/", FieldReason::EndpointNotAllowed),
        ("https://[::]/", FieldReason::EndpointNotAllowed),
        ("https://[::127.0.0.1]/", FieldReason::EndpointNotAllowed),
        ("https://[::ffff:127.0.0.1]/", FieldReason::EndpointNotAllowed),
        ("https://[64:ff9b::7f00:1]/", FieldReason::EndpointNotAllowed),
        ("https://[64:ff9b:1::a9fe:a9fe]/", FieldReason::EndpointNotAllowed),
        ("https://[fd00:ec2::254]/", FieldReason::EndpointNotAllowed),
        ("https://localhost/", FieldReason::EndpointNotAllowed),
        ("https://LOCALHOST./", FieldReason::EndpointNotAllowed),
        ("https://x.localhost/", FieldReason::EndpointNotAllowed),
        ("https://git.internal/", FieldReason::EndpointNotAllowed),
        ("https://metadata.google.internal/", FieldReason::EndpointNotAllowed),
        ("https://instance-data/", FieldReason::EndpointNotAllowed),
        ("https://git.default.svc/", FieldReason::EndpointNotAllowed),
        ("https://git.default.svc.cluster.local/", FieldReason::EndpointNotAllowed),
    ] {
        assert_eq!(reason(text), Some(expected), "{text}");
    }
    for text in ["https://gitlab.com", "https://git.test:8443/git", "https://1.1.1.1/"] {
        assert_eq!(reason(text), None, "{text}");
    }
}
