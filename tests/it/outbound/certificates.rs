//! TLS: who is trusted, and what is said of who is not.

use std::sync::Arc;

use gitmoor::outbound::{Step, check_ca_bundle};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// A certificate authority of the test's own.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test Authority");
        Self(
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"),
        )
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// TLS for `names`.
    pub(super) fn server(&self, names: &[&str]) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(names).signed_by(&key, &self.0).expect("a certificate");
        config(certificate.der().clone(), &key)
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names).expect("parameters")
}

fn config(certificate: CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate")
}

/// A way out that admits loopback at the port of `url`, by its literal address.
fn to_loopback(url: &str) -> Outbound {
    outbound(&[url.trim_start_matches("https://").to_owned()], None)
}

async fn get_at(outbound: &Outbound, url: &str, ca_pem: &str) -> Result<(u16, Bytes), TransportError> {
    let transport = transport(outbound, url, ca_pem)?;
    read(transport.send(request(Method::GET, &format!("{url}/x"), 20)).await?).await
}

#[tokio::test]
async fn ac_63_h46_an_authority_is_trusted_by_its_connection_alone() {
    let authority = Authority::new();
    let server = Server::start_tls("127.0.0.1:0", authority.server(&["127.0.0.1"]), |_, _| {
        Say::answer("200 OK", "", "ok")
    })
    .await;
    let url = format!("https://{}", server.address);
    let outbound = to_loopback(&url);
    let ok = Ok((200, Bytes::from_static(b"ok")));
    assert_eq!(get_at(&outbound, &url, &authority.pem()).await, ok);
    for other in [String::new(), Authority::new().pem()] {
        let Err(TransportError::TlsUntrusted { certificate: Some(certificate) }) =
            get_at(&outbound, &url, &other).await
        else {
            panic!("another connection trusted the authority");
        };
        assert_eq!(certificate.issuer, "CN=Test Authority");
        assert_eq!(certificate.sha256.len(), 64);
        assert!(certificate.not_after.is_some());
    }
    assert_eq!(get_at(&outbound, &url, &authority.pem()).await, ok);
}

#[tokio::test]
async fn ac_63_a_self_signed_certificate_is_trusted_when_it_is_the_bundle() {
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(&["127.0.0.1"]);
        params.is_ca = is_ca;
        let certificate = params.self_signed(&key).expect("a certificate");
        let server = Server::start_tls("127.0.0.1:0", config(certificate.der().clone(), &key), |_, _| {
            Say::answer("200 OK", "", "")
        })
        .await;
        let url = format!("https://{}", server.address);
        let outbound = to_loopback(&url);
        assert_eq!(
            get_at(&outbound, &url, &certificate.pem()).await.map(|(status, _)| status),
            Ok(200),
            "{is_ca:?}"
        );
        let untrusted = get_at(&outbound, &url, "").await;
        assert!(matches!(untrusted, Err(TransportError::TlsUntrusted { certificate: Some(_) })));
    }
}

#[tokio::test]
async fn a_trusted_bundle_excuses_neither_name_nor_time() {
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let key = KeyPair::generate().expect("a key");
        let mut wrong_name = params(&["127.0.0.2", "git.test"]);
        wrong_name.is_ca = is_ca;
        let mut expired = params(&["127.0.0.1"]);
        expired.is_ca = is_ca;
        expired.not_before = date_time_ymd(2020, 1, 1);
        expired.not_after = date_time_ymd(2021, 1, 1);
        for params in [wrong_name, expired] {
            let certificate = params.self_signed(&key).expect("a certificate");
            let server = Server::start_tls("127.0.0.1:0", config(certificate.der().clone(), &key), |_, _| {
                Say::answer("200 OK", "", "")
            })
            .await;
            let url = format!("https://{}", server.address);
            let result = get_at(&to_loopback(&url), &url, &certificate.pem()).await;
            assert!(
                matches!(result, Err(TransportError::TlsUntrusted { certificate: Some(_) })),
                "{result:?}"
            );
        }
    }
}

#[test]
fn a_bundle_is_checked_before_it_is_kept() {
    assert!(check_ca_bundle(&Authority::new().pem()).is_ok());
    let key = KeyPair::generate().expect("a key").serialize_pem();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for bad in ["", "no PEM", &key, broken, "-----BEGIN CERTIFICATE-----\n"] {
        assert_eq!(
            check_ca_bundle(bad).map_err(|refusal| refusal.reason),
            Err(FieldReason::CaCertificateMalformed),
            "{bad}"
        );
    }
}

/// A server that takes what comes first, says `bytes`, and then closes or stays silent.
async fn says(bytes: &'static [u8], then: Then) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("its address"));
    let task = tokio::spawn(async move {
        let mut open: Vec<TcpStream> = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(bytes).await;
            if then == Then::Hang {
                open.push(stream);
            }
        }
    });
    (url, task)
}

#[tokio::test]
async fn h45_tls_that_is_too_old_is_untrusted() {
    // Alerts: protocol_version, handshake_failure, insufficient_security; and a ServerHello of TLS 1.0 with RC4.
    let hello: Vec<u8> =
        [&[0x16, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1][..], &[7; 32][..], &[0, 0, 5, 0][..]].concat();
    for bytes in [
        &[0x15, 3, 1, 0, 2, 2, 70][..],
        &[0x15, 3, 1, 0, 2, 2, 40][..],
        &[0x15, 3, 3, 0, 2, 2, 71][..],
        hello.leak(),
    ] {
        let (url, _server) = says(bytes, Then::Close).await;
        let result = get_at(&to_loopback(&url), &url, "").await;
        assert_eq!(result, Err(TransportError::TlsUntrusted { certificate: None }), "{bytes:?}");
    }
}

#[tokio::test]
async fn h16_what_does_not_speak_tls_is_unreachable() {
    for bytes in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH\r\n"] {
        let (url, _server) = says(bytes, Then::Close).await;
        let result = get_at(&to_loopback(&url), &url, "").await;
        assert_eq!(result, Err(TransportError::Unreachable { phase: Phase::Tls }), "{bytes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_handshake_ends_with_its_phase() {
    let (url, _server) = says(b"", Then::Hang).await;
    let result = get_at(&to_loopback(&url), &url, "").await;
    assert_eq!(result, Err(TransportError::Unreachable { phase: Phase::Tls }));
}

#[tokio::test]
async fn h16_plain_text_behind_tls_is_refused() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("its address"));
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(&["127.0.0.1"])));
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 1_024]).await;
            let _ = stream.get_mut().0.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let result = get_at(&to_loopback(&url), &url, &authority.pem()).await;
    assert!(is_garbled(&result), "{result:?}");
    server.abort();
}

#[tokio::test]
async fn a_probe_names_the_step_and_the_certificate() {
    let authority = Authority::new();
    let server = Server::start_tls("127.0.0.1:0", authority.server(&["127.0.0.1"]), |_, _| {
        Say::answer("200 OK", "", "")
    })
    .await;
    let url = format!("https://{}", server.address);
    let parsed = Url::parse(&url).expect("a URL");
    let deadline = || Instant::now() + Duration::from_secs(20);
    let outbound = to_loopback(&url);

    let trusted = outbound.probe(&parsed, &authority.pem(), deadline()).await;
    assert!(matches!(
        (&trusted.dns, &trusted.connect, &trusted.tls),
        (Step::Done(_), Step::Done(_), Step::Done(_))
    ));
    let certificate = trusted.certificate.expect("the certificate");
    assert_eq!(certificate.issuer, "CN=Test Authority");

    let untrusted = outbound.probe(&parsed, "", deadline()).await;
    assert!(matches!(untrusted.tls, Step::Failed(TransportError::TlsUntrusted { .. })));
    assert_eq!(untrusted.certificate, Some(certificate));
    assert_eq!(server.requests().len(), 0);

    let denied = super::outbound(&[], None).probe(&parsed, "", deadline()).await;
    assert!(matches!(denied.dns, Step::Failed(TransportError::Denied { .. })));
    assert_eq!((denied.connect, denied.tls, denied.certificate), (Step::NotReached, Step::NotReached, None));

    drop(server);
    tokio::task::yield_now().await;
    let closed = outbound.probe(&parsed, "", deadline()).await;
    assert_eq!(closed.connect, Step::Failed(TransportError::Unreachable { phase: Phase::Connect }));
    assert_eq!(closed.tls, Step::NotReached);
}

#[tokio::test]
async fn http_2_is_spoken_where_the_server_offers_it() {
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("its address"));
    let mut config = authority.server(&["127.0.0.1"]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let answer = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let version = format!("{:?}", request.version());
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(version))))
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                builder.serve_connection(TokioIo::new(stream), answer).await.map_err(|_| ())
            });
        }
    });
    let result = get_at(&to_loopback(&url), &url, &authority.pem()).await;
    assert_eq!(result, Ok((200, Bytes::from_static(b"HTTP/2.0"))));
    server.abort();
}
