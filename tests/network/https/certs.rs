//! Certificates as a public key infrastructure hands them out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;

use crate::support::temp_folder;

const ONLY_12: &[&SupportedProtocolVersion] = &[&TLS12];
const ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];

/// A certificate authority; its own certificate is in a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
    folder: TempDir,
}

/// From the start of one year to that of another.
pub type Years = (i32, i32);

/// Now, for as long as these tests may live.
pub const GOOD: Years = (2020, 2120);

/// A server's certificate and its key.
pub struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = params(&[], GOOD);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let folder = temp_folder();
        std::fs::write(folder.path().join("authority.crt"), certificate.pem()).expect("write");
        Authority {
            issuer: Issuer::new(params, key),
            certificate,
            folder,
        }
    }

    /// For `SSL_CERT_DIR`.
    pub fn folder(&self) -> &str {
        self.folder.path().to_str().expect("UTF-8")
    }

    /// For `SSL_CERT_FILE`.
    pub fn file(&self) -> String {
        format!("{}/authority.crt", self.folder())
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Its own certificate as a server's.
    pub fn own_identity(&self) -> Identity {
        let key = self.issuer.key().serialize_pem();
        Identity {
            certificate: self.certificate.clone(),
            key: KeyPair::from_pem(&key).expect("a key"),
        }
    }

    /// A certificate for these host names and IP addresses.
    pub fn identity(&self, names: &[&str], valid: Years) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(names, valid)
            .signed_by(&key, &self.issuer)
            .expect("a certificate");
        Identity { certificate, key }
    }
}

impl Identity {
    /// For a server that speaks these versions of TLS.
    pub fn server(&self, versions: Versions) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(match versions {
                Versions::Only12 => ONLY_12,
                Versions::Only13 => ONLY_13,
                Versions::Both => ALL_VERSIONS,
            })
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .expect("a certificate and its key");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Both in one PEM file, as Python wants them.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let file = folder.join("identity.pem");
        let pem = self.certificate.pem() + &self.key.serialize_pem();
        std::fs::write(&file, pem).expect("write");
        file
    }
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    Only12,
    Only13,
    Both,
}

fn params(names: &[&str], valid: Years) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.not_before = date_time_ymd(valid.0, 1, 1);
    params.not_after = date_time_ymd(valid.1, 1, 1);
    params
}
