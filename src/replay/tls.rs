//! TLS to the main server or to a proxy (spec 6). Nothing of it is in memory
//! before the first connection that needs it.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, KeyProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::roots;
use super::stream::Stream;
use crate::limits::{TLS_SEND_BUFFER, TLS_SESSIONS_MAX};

/// What all TLS connections share, once there is one.
#[derive(Default)]
pub(super) struct Tls {
    config: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// Speaks TLS over `stream` with a peer whose certificate has to name `host`.
    ///
    /// # Errors
    /// Why there is no such connection, as one line.
    pub(super) async fn handshake(&mut self, host: &str, stream: Stream) -> Result<Stream, String> {
        let connector = TlsConnector::from(self.config()?);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| "its host is no name for a certificate")?;
        let mut stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| explain(&error))?;
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

/// Verifies as rustls does, with roots that are read anew for each certificate and kept for
/// that moment: a hundred of them would stay in memory for the rest of the process, and a
/// new file counts from the next connection on.
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
        let roots = roots::load().map_err(Error::General)?;
        // All that can be wrong with the roots is that there are none.
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.0))
            .build()
            .map_err(|_| CertificateError::UnknownIssuer)?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Says why a handshake failed.
fn explain(error: &io::Error) -> String {
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        // A server that speaks plain HTTP.
        Some(Error::InvalidMessage(_)) => "it does not speak TLS".into(),
        Some(Error::General(why)) => why.clone(),
        _ => format!("TLS: {error}"),
    }
}
