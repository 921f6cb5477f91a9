//! Which certificate authorities are trusted (spec 6): the system's, else those
//! built in.
//!
//! They are read anew for each certificate that is to be verified, and only the
//! ones that its chain names are kept, for that moment: what a hundred of them
//! take in memory would stay for the rest of the life, and a new file counts
//! from the next connection on.

use std::ffi::OsString;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor};

/// Where certificates of authorities are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Roots {
    file: Option<PathBuf>,
    folders: Vec<PathBuf>,
    /// By a variable: nothing else is trusted then.
    given: bool,
}

impl Roots {
    /// Where this system has them, or where `SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// say.
    pub(super) fn of_system() -> Roots {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Roots::given(
            variable(openssl_probe::ENV_CERT_FILE),
            variable(openssl_probe::ENV_CERT_DIR),
        )
        .unwrap_or_else(|| {
            let found = openssl_probe::probe();
            Roots {
                file: found.cert_file,
                folders: found.cert_dir,
                given: false,
            }
        })
    }

    fn given(file: Option<OsString>, folders: Option<OsString>) -> Option<Roots> {
        let given = file.is_some() || folders.is_some();
        given.then(|| Roots {
            file: file.map(PathBuf::from),
            folders: folders.map_or_else(Vec::new, |list| std::env::split_paths(&list).collect()),
            given,
        })
    }

    /// The authorities that a certificate of `chain` names: those of the file, or
    /// those of the folders where it has none. On most systems the folder has what
    /// the file has, once more.
    ///
    /// # Errors
    /// A variable that leads to no certificate at all, as one line.
    pub(super) fn named_in(&self, chain: &[&CertificateDer<'_>]) -> Result<RootCertStore, String> {
        self.search(chain, |found| found.is_empty())
    }

    /// The same from everywhere: an authority with a new key has its old name.
    ///
    /// # Errors
    /// The same.
    pub(super) fn all_named_in(
        &self,
        chain: &[&CertificateDer<'_>],
    ) -> Result<RootCertStore, String> {
        self.search(chain, |_| true)
    }

    /// Looks into each folder if `go_on` says so of what was found before it.
    fn search(
        &self,
        chain: &[&CertificateDer<'_>],
        go_on: impl Fn(&RootCertStore) -> bool,
    ) -> Result<RootCertStore, String> {
        let mut search = Search {
            chain,
            seen: 0,
            found: RootCertStore::empty(),
        };
        if let Some(file) = &self.file {
            search.look_into(file);
        }
        for folder in &self.folders {
            if go_on(&search.found) {
                search.look_into_all(folder);
            }
        }
        if search.seen == 0 && self.given {
            return Err("SSL_CERT_FILE and SSL_CERT_DIR lead to no certificate".into());
        }
        if search.seen == 0 {
            let built_in = webpki_roots::TLS_SERVER_ROOTS.iter();
            let named = built_in.filter(|root| is_named(root, chain));
            search.found.extend(named.cloned());
        }
        Ok(search.found)
    }
}

struct Search<'a> {
    chain: &'a [&'a CertificateDer<'a>],
    /// Certificates looked at.
    seen: usize,
    found: RootCertStore,
}

impl Search<'_> {
    /// Looks into every file of a folder. One that cannot be read is as none.
    fn look_into_all(&mut self, folder: &PathBuf) {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            self.look_into(&entry.path());
        }
    }

    /// Looks at every certificate of a PEM file.
    fn look_into(&mut self, file: &PathBuf) {
        // A pipe would be waited for.
        if !file.is_file() {
            return;
        }
        let Ok(certificates) = CertificateDer::pem_file_iter(file) else {
            return;
        };
        for certificate in certificates.flatten() {
            // What is no certificate cannot be trusted, and harms no other.
            if self.found.add(certificate).is_err() {
                continue;
            }
            self.seen += 1;
            let newest = self.found.roots.last();
            if newest.is_some_and(|root| !is_named(root, self.chain)) {
                self.found.roots.pop();
            }
        }
    }
}

/// Whether the authority's name is anywhere in the chain. An issuer's name is
/// there byte for byte (RFC 5280, 7.1, as webpki compares them).
fn is_named(root: &TrustAnchor<'_>, chain: &[&CertificateDer<'_>]) -> bool {
    let name: &[u8] = &root.subject;
    chain.iter().any(|certificate| {
        !name.is_empty() && certificate.windows(name.len()).any(|part| part == name)
    })
}

#[cfg(test)]
mod tests {
    use super::Roots;
    use rustls::pki_types::CertificateDer;

    /// A chain that names one of the authorities that are built in.
    fn chain() -> CertificateDer<'static> {
        let name = &webpki_roots::TLS_SERVER_ROOTS[0].subject;
        [b"before", &name[..], b"after"].concat().into()
    }

    #[test]
    fn the_built_in_authorities_are_for_a_system_without_any() {
        let without = Roots {
            file: Some("/nonexistent".into()),
            folders: vec!["/nonexistent".into(), "/dev/null".into()],
            given: false,
        };
        let found = without.named_in(&[&chain()]).unwrap();
        // Authorities with several keys have one name.
        let name = &webpki_roots::TLS_SERVER_ROOTS[0].subject;
        assert!(!found.is_empty() && found.roots.iter().all(|root| root.subject == *name));
        let nobody = CertificateDer::from(&b"names nobody"[..]);
        assert!(without.named_in(&[&nobody]).unwrap().is_empty());

        let given = Roots {
            given: true,
            ..without
        };
        let why = given.named_in(&[&chain()]).unwrap_err();
        assert_eq!(why, "SSL_CERT_FILE and SSL_CERT_DIR lead to no certificate");
    }

    #[test]
    fn a_system_with_authorities_is_not_added_to() {
        let folder = std::env::temp_dir().join(format!("roots-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["its.own".into()]).unwrap();
        let own = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("own.pem"), own.pem()).unwrap();
        let system = Roots {
            file: None,
            folders: vec![folder.clone()],
            given: false,
        };
        assert_eq!(system.named_in(&[own.der()]).unwrap().len(), 1);
        assert!(system.named_in(&[&chain()]).unwrap().is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_variables_replace_what_the_system_has() {
        assert_eq!(Roots::given(None, None), None);
        let roots = |file: Option<&str>, folders: &[&str]| {
            Some(Roots {
                file: file.map(Into::into),
                folders: folders.iter().map(Into::into).collect(),
                given: true,
            })
        };
        assert_eq!(
            Roots::given(Some("/f".into()), None),
            roots(Some("/f"), &[])
        );
        let list = Some("/a:/b".into());
        assert_eq!(Roots::given(None, list), roots(None, &["/a", "/b"]));
        let both = Roots::given(Some("/f".into()), Some("/a".into()));
        assert_eq!(both, roots(Some("/f"), &["/a"]));
    }
}
