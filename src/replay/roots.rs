//! Which certificate authorities are trusted (spec 6): the system's, else those
//! built in.
//!
//! They are read anew for each certificate that is to be verified, and only the
//! ones that its chain names are kept, for that moment: what a hundred of them
//! take in memory would stay for the rest of the life, and a new file counts
//! from the next connection on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor};

/// Each names a file or a folder of certificates: OpenSSL's two, and those by which
/// Python's clients trust (requests, curl). Of them, [`LIST`] may name several.
const VARIABLES: [&str; 4] = [
    openssl_probe::ENV_CERT_FILE,
    LIST,
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];
const LIST: &str = openssl_probe::ENV_CERT_DIR;

/// Where certificates of authorities are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Roots {
    /// Files, and folders of files.
    places: Vec<PathBuf>,
    /// Those that name the places: nothing else is trusted then.
    variables: Vec<&'static str>,
}

impl Roots {
    /// Where the environment says, else where this system has them.
    pub(super) fn of_system() -> Roots {
        Roots::given(|name| std::env::var_os(name)).unwrap_or_else(|| {
            let found = openssl_probe::probe();
            Roots {
                places: found.cert_file.into_iter().chain(found.cert_dir).collect(),
                variables: Vec::new(),
            }
        })
    }

    /// What all of [`VARIABLES`] name together, where any is set; an empty value is as
    /// none.
    fn given(variable: impl Fn(&str) -> Option<OsString>) -> Option<Roots> {
        let mut roots = Roots::default();
        for name in VARIABLES {
            let Some(value) = variable(name).filter(|value| !value.is_empty()) else {
                continue;
            };
            roots.variables.push(name);
            match name {
                LIST => roots.places.extend(std::env::split_paths(&value)),
                _ => roots.places.push(value.into()),
            }
        }
        (!roots.variables.is_empty()).then_some(roots)
    }

    /// The authorities that a certificate of `chain` names: those of the first place that
    /// has any. On most systems the folder has what the file has, once more.
    ///
    /// # Errors
    /// Variables that lead to no certificate at all, as one line.
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

    /// Looks into each place if `go_on` says so of what was found before it.
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
        for place in &self.places {
            if go_on(&search.found) {
                search.look_into(place);
            }
        }
        if search.seen == 0 && !self.variables.is_empty() {
            let variables = self.variables.join(" and ");
            return Err(format!("no certificate found through {variables}"));
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
    /// Looks into a file, or every file of a folder. One that cannot be read is as none.
    fn look_into(&mut self, place: &Path) {
        match std::fs::read_dir(place) {
            Ok(entries) => entries
                .flatten()
                .for_each(|entry| self.look_at(&entry.path())),
            Err(_) => self.look_at(place),
        }
    }

    /// Looks at every certificate of a PEM file.
    fn look_at(&mut self, file: &Path) {
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
            places: vec!["/nonexistent".into(), "/dev/null".into()],
            variables: vec![],
        };
        let found = without.named_in(&[&chain()]).unwrap();
        // Authorities with several keys have one name.
        let name = &webpki_roots::TLS_SERVER_ROOTS[0].subject;
        assert!(!found.is_empty() && found.roots.iter().all(|root| root.subject == *name));
        let nobody = CertificateDer::from(&b"names nobody"[..]);
        assert!(without.named_in(&[&nobody]).unwrap().is_empty());

        let given = Roots {
            variables: vec!["SSL_CERT_DIR", "CURL_CA_BUNDLE"],
            ..without
        };
        let why = given.named_in(&[&chain()]).unwrap_err();
        assert_eq!(
            why,
            "no certificate found through SSL_CERT_DIR and CURL_CA_BUNDLE"
        );
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
            places: vec![folder.clone()],
            variables: vec![],
        };
        assert_eq!(system.named_in(&[own.der()]).unwrap().len(), 1);
        assert!(system.named_in(&[&chain()]).unwrap().is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_variables_replace_what_the_system_has() {
        let roots = |environment: &[(&str, &str)]| {
            Roots::given(|name| {
                let set = environment.iter().find(|(known, _)| *known == name);
                set.map(|(_, value)| value.into())
            })
        };
        let expect = |environment: &[(&str, &str)], places: &[&str], variables: &[&'static str]| {
            let places = places.iter().map(Into::into).collect();
            let variables = variables.to_vec();
            assert_eq!(roots(environment), Some(Roots { places, variables }));
        };
        assert_eq!(roots(&[]), None);
        assert_eq!(
            roots(&[("SSL_CERT_FILE", ""), ("CURL_CA_BUNDLE", "")]),
            None
        );
        let file = ("SSL_CERT_FILE", "/f:g");
        let folders = ("SSL_CERT_DIR", "/a:/b");
        let requests = ("REQUESTS_CA_BUNDLE", "/r:s");
        let curl = ("CURL_CA_BUNDLE", "/c");
        expect(&[file], &["/f:g"], &["SSL_CERT_FILE"]);
        expect(&[folders], &["/a", "/b"], &["SSL_CERT_DIR"]);
        expect(
            &[requests, ("SSL_CERT_FILE", "")],
            &["/r:s"],
            &["REQUESTS_CA_BUNDLE"],
        );
        expect(
            &[curl, requests, folders, file],
            &["/f:g", "/a", "/b", "/r:s", "/c"],
            &super::VARIABLES,
        );
    }
}
