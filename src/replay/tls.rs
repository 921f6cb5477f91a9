//! TLS to the main server or to a proxy (spec 6). Nothing of it is in memory
//! before the first connection that needs it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, KeyProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;

use super::authority::Authority;
use super::roots::Roots;
use super::stream::Stream;
use crate::limits::{TLS_SEND_BUFFER, TLS_SESSIONS_MAX};

/// What all TLS connections share, once there is one.
#[derive(Default)]
pub(super) struct Tls {
    config: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// Speaks TLS over `stream` with `peer`, whose certificate has to name it.
    ///
    /// # Errors
    /// Why there is no such connection, as one line.
    pub(super) async fn handshake(
        &mut self,
        peer: &Authority,
        stream: Stream,
    ) -> Result<Stream, String> {
        let connector = TlsConnector::from(self.config()?);
        let mut stream = connector
            .connect(peer.server_name()?, stream)
            .await
            .map_err(|error| explain(&error, peer))?;
        let (_, session) = stream.get_mut();
        session.set_buffer_limit(Some(TLS_SEND_BUFFER));
        Ok(Stream::Tls(Box::new(stream)))
    }

    fn config(&mut self) -> Result<Arc<ClientConfig>, String> {
        if let Some(config) = &self.config {
            return Ok(Arc::clone(config));
        }
        let provider = Arc::new(CryptoProvider {
            key_provider: &NoKeys,
            ..ring::default_provider()
        });
        let verifier = Arc::new(Verifier(Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous() // verifies as rustls does, with roots that are read late
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(TLS_SESSIONS_MAX);
        Ok(Arc::clone(self.config.insert(Arc::new(config))))
    }
}

/// No client has a certificate here; ring's own would bring the code that signs.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("a client has no key".into()))
    }
}

/// rustls's own verifier, made for each certificate with the roots it needs.
#[derive(Debug)]
struct Verifier(Arc<CryptoProvider>);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).collect();
        let system = Roots::of_system();
        let verify = |roots: Result<RootCertStore, String>| {
            let roots = Arc::new(roots.map_err(Error::General)?);
            // All that can be wrong with the roots is that there are none.
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.0))
                .build()
                .map_err(|_| CertificateError::UnknownIssuer)?
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        verify(system.named_in(&chain)).or_else(|_| verify(system.all_named_in(&chain)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a handshake failed, in words that need no knowledge of TLS where the
/// cause is a usual one.
fn explain(error: &io::Error, peer: &Authority) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
        NotValidYet, NotValidYetContext, Other, UnknownIssuer,
    };
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(Error::InvalidCertificate(UnknownIssuer)) => {
            "its certificate is from an unknown issuer, which this system does not trust".into()
        }
        Some(Error::InvalidCertificate(Expired)) => "its certificate has expired".into(),
        Some(Error::InvalidCertificate(ExpiredContext { not_after, .. })) => {
            format!("its certificate has expired: it ended {}", date(*not_after))
        }
        Some(Error::InvalidCertificate(NotValidYet)) => "its certificate is not valid yet".into(),
        Some(Error::InvalidCertificate(NotValidYetContext { not_before, .. })) => {
            let begin = date(*not_before);
            format!("its certificate is not valid yet: it begins {begin}")
        }
        Some(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
            format!("its certificate is for another name than {}", peer.host)
        }
        Some(Error::InvalidCertificate(BadSignature)) => {
            "its certificate is not signed by the issuer that it names".into()
        }
        // What `openssl req -x509` makes by itself.
        Some(Error::InvalidCertificate(Other(why))) if why.to_string() == "CaUsedAsEndEntity" => {
            "its certificate is an authority's own (CA:TRUE), not a server's".into()
        }
        Some(Error::InvalidMessage(_)) => "it does not speak TLS".into(),
        Some(Error::General(why)) => why.clone(),
        Some(error) => format!("TLS: {error}"),
        None => format!("TLS: {error}"),
    }
}

/// A time as RFC 3339, UTC.
fn date(time: UnixTime) -> String {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(time.as_secs()))
        .map_or_else(String::new, |time| {
            humantime::format_rfc3339_seconds(time).to_string()
        })
}
