//! Which certificate authorities are trusted (spec 6): the system's, else those
//! built in.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Each names files or folders of certificates, separated by `:`: OpenSSL's two, and those
/// by which Python's clients trust (requests, curl).
const VARIABLES: [&str; 4] = [
    openssl_probe::ENV_CERT_FILE,
    openssl_probe::ENV_CERT_DIR,
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];

/// Reads the authorities that all variables name together where any is set, else those
/// of the first place where this system has any, else those built in.
///
/// # Errors
/// Variables that lead to no certificate at all, as one line.
pub(super) fn load() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let mut given = Vec::new();
    for name in VARIABLES {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            given.push(name);
            std::env::split_paths(&value).for_each(|place| read(&place, &mut roots));
        }
    }
    if given.is_empty() {
        let found = openssl_probe::probe();
        for place in found.cert_file.into_iter().chain(found.cert_dir) {
            // On most systems the folder has what the file has, once more.
            if roots.is_empty() {
                read(&place, &mut roots);
            }
        }
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
    } else if roots.is_empty() {
        let given = given.join(" and ");
        return Err(format!("no certificate found through {given}"));
    }
    Ok(roots)
}

/// Reads a PEM file, or every one of a folder. What cannot be read, or is no certificate,
/// harms no other.
fn read(place: &Path, roots: &mut RootCertStore) {
    if let Ok(entries) = std::fs::read_dir(place) {
        entries
            .flatten()
            .for_each(|entry| read_file(&entry.path(), roots));
    } else {
        read_file(place, roots);
    }
}

fn read_file(file: &Path, roots: &mut RootCertStore) {
    // A pipe would be waited for.
    if file.is_file()
        && let Ok(certificates) = CertificateDer::pem_file_iter(file)
    {
        roots.add_parsable_certificates(certificates.flatten());
    }
}
