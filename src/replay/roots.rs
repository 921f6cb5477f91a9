//! Which certificate authorities are trusted (spec 6): the system's, else those
//! built in.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Each names a file or a folder of certificates: OpenSSL's two, and those by which Python's
/// clients trust (requests, curl). Of them, [`LIST`] may name several.
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
pub(super) fn load() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let mut given = Vec::new();
    for name in VARIABLES {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            given.push(name);
            match name {
                LIST => std::env::split_paths(&value).for_each(|place| read(&place, &mut roots)),
                _ => read(Path::new(&value), &mut roots),
            }
        }
    }
    if given.is_empty() {
        let found = openssl_probe::probe();
        return Ok(of_system(found.cert_file.into_iter().chain(found.cert_dir)));
    }
    if roots.is_empty() {
        let given = given.join(" and ");
        return Err(format!("no certificate found through {given}"));
    }
    Ok(roots)
}

/// Reads the authorities of the first place that has any, else those built in. On most
/// systems the folder has what the file has, once more.
fn of_system(places: impl Iterator<Item = PathBuf>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for place in places {
        if roots.is_empty() {
            read(&place, &mut roots);
        }
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
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

#[cfg(test)]
mod tests {
    use super::of_system;

    #[test]
    fn the_built_in_authorities_are_for_a_system_without_any() {
        let built_in = webpki_roots::TLS_SERVER_ROOTS.len();
        let without = ["/nonexistent", "/dev/null"].map(Into::into);
        assert_eq!(of_system(without.into_iter()).len(), built_in);

        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["its.own".into()]).unwrap();
        let own = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("own.pem"), own.pem()).unwrap();
        std::fs::write(folder.path().join("other"), "no certificate").unwrap();
        let with = ["/nonexistent".into(), folder.path().to_owned()];
        assert_eq!(of_system(with.into_iter()).len(), 1);
    }
}
