//! Which certificate authorities are trusted (spec 6): the system's, else those
//! built in.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Each names a file or a folder of certificates: OpenSSL's two, and those by which
/// Python's clients trust (requests, curl). Of them, [`LIST`] may name several.
const VARIABLES: [&str; 4] = [
    openssl_probe::ENV_CERT_FILE,
    LIST,
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];
const LIST: &str = openssl_probe::ENV_CERT_DIR;

/// Reads the authorities that all variables name together where any is set, else those
/// of the first place where this system has any, else those built in.
///
/// # Errors
/// Variables that lead to no certificate at all, as one line.
pub(super) fn load(variable: impl Fn(&str) -> Option<OsString>) -> Result<RootCertStore, String> {
    let set = |&name: &&'static str| {
        let value = variable(name).filter(|value| !value.is_empty());
        value.map(|value| (name, value))
    };
    let given: Vec<(&str, OsString)> = VARIABLES.iter().filter_map(set).collect();
    let mut roots = RootCertStore::empty();
    for (name, value) in &given {
        match *name {
            LIST => std::env::split_paths(value).for_each(|place| read(&place, &mut roots)),
            _ => read(Path::new(value), &mut roots),
        }
    }
    if !given.is_empty() {
        let names: Vec<_> = given.iter().map(|(name, _)| *name).collect();
        return match roots.is_empty() {
            true => Err(format!(
                "no certificate found through {}",
                names.join(" and ")
            )),
            false => Ok(roots),
        };
    }
    let found = openssl_probe::probe();
    let places: Vec<PathBuf> = found.cert_file.into_iter().chain(found.cert_dir).collect();
    for place in places {
        // On most systems the folder has what the file has, once more.
        if roots.is_empty() {
            read(&place, &mut roots);
        }
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
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
