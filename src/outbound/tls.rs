//! TLS 1.2 and up with ring, the system's roots, and what a connection adds to them.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue, WebPkiServerVerifier, verify_server_name,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, NamedGroup, OtherError, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Phase;
use super::TransportError;
use super::reqwest::enter;
use crate::domain::timestamp::Timestamp;
use crate::domain::verification::Certificate;
use crate::domain::violation::{FieldReason, Refusal};

/// Most certificates in one bundle.
const MAX_BUNDLE: usize = 64;
/// Longest issuer or subject that is kept, in characters.
const MAX_NAME_CHARS: usize = 256;

/// Checks the certificates that a connection adds to the system's roots.
///
/// # Errors
///
/// `CA_CERTIFICATE_MALFORMED`: no PEM, no certificate in it, more than 64, or one that cannot be read.
pub fn check_ca_bundle(pem: &str) -> Result<(), Refusal> {
    bundle(pem).map(|_| ()).map_err(|problem| Refusal::new(FieldReason::CaCertificateMalformed, problem))
}

fn bundle(pem: &str) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let mut certificates = Vec::new();
    for item in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = item.map_err(|_| "the text is not a PEM bundle of certificates")?;
        if certificates.len() >= MAX_BUNDLE {
            return Err("the bundle has more than 64 certificates");
        }
        RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|_| "a certificate in the bundle cannot be read")?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err("the text has no certificate (-----BEGIN CERTIFICATE-----)");
    }
    Ok(certificates)
}

/// What every connection trusts: the roots of the system, or Mozilla's if the system has none.
#[derive(Clone)]
pub(super) struct Trust {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    system: Arc<WebPkiServerVerifier>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

impl Trust {
    pub(super) fn of_system() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        // One unreadable certificate on the machine is no reason to trust none of the others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(roots);
        let system = web_pki(Arc::clone(&roots), &provider)?;
        Ok(Self { roots, provider, system })
    }

    /// Settings that trust the system's roots and `ca_pem` (empty for none).
    pub(super) fn client_config(&self, ca_pem: &str) -> Result<ClientConfig, TransportError> {
        let added = if ca_pem.trim().is_empty() {
            Vec::new()
        } else {
            bundle(ca_pem).map_err(TransportError::garbled)?
        };
        let verifier = self.verifier(added).map_err(|_| TransportError::garbled("TLS cannot be set up"))?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|_| TransportError::garbled("TLS cannot be set up"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.resumption = Resumption::store(Arc::new(Sessions(ClientSessionMemoryCache::new(8))));
        Ok(config)
    }

    fn verifier(&self, added: Vec<CertificateDer<'static>>) -> Result<Verifier, rustls::Error> {
        let web_pki = if added.is_empty() {
            Arc::clone(&self.system)
        } else {
            let mut roots = RootCertStore::clone(&self.roots);
            roots.add_parsable_certificates(added.iter().cloned());
            web_pki(Arc::new(roots), &self.provider)?
        };
        Ok(Verifier { web_pki, added })
    }
}

fn web_pki(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// The certificate that was not trusted, on its way through the error types of the TLS library.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the certificate is not trusted")]
pub(super) struct Untrusted {
    pub(super) certificate: Option<Box<Certificate>>,
}

/// The usual verification, which names the certificate when it fails.
///
/// It accepts one thing more: a certificate that stands in the connection's own bundle byte for byte, is in its
/// time and names the host, even if it is marked as a CA. That is what `openssl req -x509` makes, and what
/// self-hosted servers with a self-signed certificate present.
#[derive(Debug)]
struct Verifier {
    web_pki: Arc<WebPkiServerVerifier>,
    added: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn is_pinned(&self, end_entity: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        self.added.iter().any(|added| added == end_entity)
            && in_time(end_entity, now)
            && ParsedCertificate::try_from(end_entity)
                .is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

fn in_time(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok(now) = i64::try_from(now.as_secs()) else { return false };
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
        let validity = parsed.validity();
        (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
    })
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.web_pki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            Ok(verified) => Ok(verified),
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if self.is_pinned(end_entity, server_name, now) =>
            {
                Ok(ServerCertVerified::assertion())
            }
            Err(_) => {
                let certificate = describe(end_entity).map(Box::new);
                Err(rustls::Error::Other(OtherError(Arc::new(Untrusted { certificate }))))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.web_pki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.web_pki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web_pki.supported_verify_schemes()
    }
}

/// What people need to recognise a certificate; `None` if it cannot be read.
pub(super) fn describe(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(Certificate {
        issuer: clean(&parsed.issuer().to_string()),
        subject: clean(&parsed.subject().to_string()),
        not_after: Some(Timestamp::from_unix_seconds(parsed.validity().not_after.timestamp())),
        sha256: digest(&SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// A name in a certificate is whatever its maker wrote.
fn clean(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect()
}

/// The word that a failed handshake stands for.
pub(super) fn handshake_error(error: &rustls::Error) -> TransportError {
    use rustls::AlertDescription::{HandshakeFailure, InsufficientSecurity, ProtocolVersion};
    match error {
        rustls::Error::Other(OtherError(inner)) => match inner.downcast_ref::<Untrusted>() {
            Some(untrusted) => TransportError::TlsUntrusted { certificate: untrusted.certificate.clone() },
            None => TransportError::unreachable(Phase::Tls),
        },
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(HandshakeFailure | InsufficientSecurity | ProtocolVersion) => {
            TransportError::TlsUntrusted { certificate: None }
        }
        _ => TransportError::unreachable(Phase::Tls),
    }
}

/// The sessions of one client, so that a second connection costs less. The first thing that a handshake does is
/// to ask for the key exchange of the last one: that tells how far the attempt came.
#[derive(Debug)]
struct Sessions(ClientSessionMemoryCache);

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        enter(Phase::Tls);
        self.0.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.0.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(server_name)
    }
}
