//! Where a redirect of the main server leads (RFC 3986, 5.2).

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

use super::authority::{Authority, Scheme};
use super::endpoint::Endpoint;

/// The path that `location`, found in the answer for `base`, names on the same
/// scheme, host and port; `None` where it leads elsewhere or is no URL.
#[must_use]
pub fn resolve(endpoint: &Endpoint, base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let absolute = match location.split_once(':') {
        // A colon after the first `/` or `?` belongs to no scheme.
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            Some((Scheme::of(scheme)?, rest.strip_prefix("//")?))
        }
        _ => location
            .strip_prefix("//")
            .map(|rest| (endpoint.authority().scheme, rest)),
    };
    let target = match absolute {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            if *endpoint.authority() != Authority::parse(scheme, host).ok()? {
                return None;
            }
            if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            }
        }
        None if location.is_empty() => base.to_string(),
        None if location.starts_with('/') => location.to_owned(),
        None if location.starts_with('?') => format!("{}{location}", base.path()),
        None => {
            let folder = base
                .path()
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            format!("{folder}/{location}")
        }
    };
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let target = without_dots(path) + query;
    PathAndQuery::try_from(target).map(Uri::from).ok()
}

/// `path`, which starts with `/`, with its `.` and `..` segments resolved
/// (RFC 3986, 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split('/').skip(1) {
        ends_in_folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    if ends_in_folder {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, resolve};
    use hyper::Uri;

    #[test]
    fn locations_on_the_same_host_and_elsewhere() {
        let base = Uri::from_static("/b/c/d?q");
        for (location, expected) in [
            ("http://h:81/x", Some("/x")),
            ("HTTP://H:81/x?y", Some("/x?y")),
            ("http://u:p@h:81/x", Some("/x")),
            ("http://h:81", Some("/")),
            ("http://h:81?y", Some("/?y")),
            ("//h:81/x", Some("/x")),
            ("/x", Some("/x")),
            ("/x#fragment", Some("/x")),
            ("/x?y=http://elsewhere/", Some("/x?y=http://elsewhere/")),
            ("", Some("/b/c/d?q")),
            ("#fragment", Some("/b/c/d?q")),
            // The examples of RFC 3986, 5.4, as far as they concern a path.
            ("g", Some("/b/c/g")),
            ("./g", Some("/b/c/g")),
            ("g/", Some("/b/c/g/")),
            ("/g", Some("/g")),
            ("?y", Some("/b/c/d?y")),
            ("g?y", Some("/b/c/g?y")),
            (".", Some("/b/c/")),
            ("./", Some("/b/c/")),
            ("..", Some("/b/")),
            ("../", Some("/b/")),
            ("../g", Some("/b/g")),
            ("../..", Some("/")),
            ("../../../g", Some("/g")),
            ("/./g", Some("/g")),
            ("/../g", Some("/g")),
            ("g.", Some("/b/c/g.")),
            ("..g", Some("/b/c/..g")),
            ("./g/.", Some("/b/c/g/")),
            ("g/../h", Some("/b/c/h")),
            ("g?y/../x", Some("/b/c/g?y/../x")),
            ("./a:b", Some("/b/c/a:b")),
            // Elsewhere.
            ("http://h/x", None),
            ("http://h:82/x", None),
            ("http://other:81/x", None),
            ("//other:81/x", None),
            ("https://h:81/x", None),
            ("ftp://h:81/x", None),
            ("http:x", None),
            ("http:/x", None),
            ("http://h:81@other/x", None),
            ("http://", None),
            ("a:b", None),
            (":", None),
            ("/a b", None),
            ("/a\nb", None),
        ] {
            let endpoint = Endpoint::parse("http://h:81/prefix").unwrap();
            let target = resolve(&endpoint, &base, location);
            let target = target.as_ref().map(Uri::to_string);
            assert_eq!(target.as_deref(), expected, "{location:?}");
        }
    }
    #[test]
    #[cfg(feature = "tls")]
    fn a_redirect_keeps_the_scheme() {
        let endpoint = Endpoint::parse("https://h").unwrap();
        for (location, expected) in [
            ("https://h/x", Some("/x")),
            ("https://h:443/x", Some("/x")),
            ("//h/x", Some("/x")),
            ("/x", Some("/x")),
            ("http://h/x", None),
            ("http://h:443/x", None),
            ("//h:80/x", None),
        ] {
            let target = resolve(&endpoint, endpoint.health_path(), location);
            let target = target.as_ref().map(Uri::to_string);
            assert_eq!(target.as_deref(), expected, "{location:?}");
        }
    }
}
