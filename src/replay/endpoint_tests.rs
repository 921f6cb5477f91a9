//! Tables of URLs.

use super::Endpoint;

#[test]
fn urls_that_name_a_server() {
    // URL, host, port, Host header, probe, log, Display
    for (url, host, port, header, health, log, shown) in [
        (
            "http://data-nadhi-server:5000",
            "data-nadhi-server",
            5000,
            "data-nadhi-server:5000",
            "/",
            "/log",
            "http://data-nadhi-server:5000",
        ),
        ("http://h", "h", 80, "h", "/", "/log", "http://h"),
        ("http://h/", "h", 80, "h", "/", "/log", "http://h"),
        ("http://h:80/", "h", 80, "h", "/", "/log", "http://h"),
        ("http://h:/", "h", 80, "h", "/", "/log", "http://h"),
        ("http://h:080", "h", 80, "h", "/", "/log", "http://h"),
        (
            "HTTP://Ex.ORG:81",
            "ex.org",
            81,
            "ex.org:81",
            "/",
            "/log",
            "http://ex.org:81",
        ),
        ("http://h/a", "h", 80, "h", "/a/", "/a/log", "http://h/a"),
        (
            "http://h/a/B/",
            "h",
            80,
            "h",
            "/a/B/",
            "/a/B/log",
            "http://h/a/B",
        ),
        ("http://h/a//", "h", 80, "h", "/a/", "/a/log", "http://h/a"),
        (
            "http://h/a%20b",
            "h",
            80,
            "h",
            "/a%20b/",
            "/a%20b/log",
            "http://h/a%20b",
        ),
        (
            "http://h//a",
            "h",
            80,
            "h",
            "//a/",
            "//a/log",
            "http://h//a",
        ),
        (
            "http://h/@b",
            "h",
            80,
            "h",
            "/@b/",
            "/@b/log",
            "http://h/@b",
        ),
        (
            "http://10.0.0.1:65535",
            "10.0.0.1",
            65535,
            "10.0.0.1:65535",
            "/",
            "/log",
            "http://10.0.0.1:65535",
        ),
        (
            "http://a_b-c.d.:1",
            "a_b-c.d.",
            1,
            "a_b-c.d.:1",
            "/",
            "/log",
            "http://a_b-c.d.:1",
        ),
        (
            "http://[::1]",
            "::1",
            80,
            "[::1]",
            "/",
            "/log",
            "http://[::1]",
        ),
        (
            "http://[2001:DB8::0:1]:5000/x",
            "2001:db8::1",
            5000,
            "[2001:db8::1]:5000",
            "/x/",
            "/x/log",
            "http://[2001:db8::1]:5000/x",
        ),
        (
            "http://[fe80::1%25eth0]:8",
            "fe80::1%eth0",
            8,
            "[fe80::1]:8",
            "/",
            "/log",
            "http://[fe80::1]:8",
        ),
        ("http://@h", "h", 80, "h", "/", "/log", "http://h"),
        ("http://u@h:8", "h", 8, "h:8", "/", "/log", "http://***@h:8"),
        (
            "http://u:p@h/a",
            "h",
            80,
            "h",
            "/a/",
            "/a/log",
            "http://***@h/a",
        ),
        ("http://u:p@q@h", "h", 80, "h", "/", "/log", "http://***@h"),
        (
            "http://u:p@[::1]:8",
            "::1",
            8,
            "[::1]:8",
            "/",
            "/log",
            "http://***@[::1]:8",
        ),
    ] {
        let endpoint = Endpoint::parse(url).unwrap_or_else(|why| panic!("{url}: {why}"));
        assert_eq!(endpoint.host(), host, "{url}");
        assert_eq!(endpoint.port(), port, "{url}");
        assert_eq!(endpoint.host_header(), header, "{url}");
        assert_eq!(endpoint.health_path(), health, "{url}");
        assert_eq!(endpoint.log_path(), log, "{url}");
        assert_eq!(endpoint.to_string(), shown, "{url}");
    }
}

#[test]
fn urls_that_do_not() {
    let start = "it must start with http:// or https://";
    let host = "its host is no host name";
    let port = "its port is no number from 1 to 65535";
    let path = "its path holds characters that must be percent-encoded";
    let query = "it must have no query and no fragment";
    let percent = "a % in its credentials is not followed by two hex digits";
    for (url, why) in [
        ("", start),
        ("h:5000", start),
        ("h", start),
        ("//h", start),
        ("http:/h", start),
        ("http:h", start),
        ("ftp://h", start),
        (" http://h", start),
        ("unix:///s", start),
        ("http://", "it has no host"),
        ("http:///log", "it has no host"),
        ("http://:5000", "it has no host"),
        ("http://s3cr3t@", "it has no host"),
        ("http://a b", host),
        ("http://h\r\nX: y", host),
        ("http://h%41", host),
        ("http://é", host),
        ("http://h\\x", host),
        ("http://h:0", port),
        ("http://h:65536", port),
        ("http://h:99999999999999999999", port),
        ("http://h:+80", port),
        ("http://h:http", port),
        ("http://h:80:80", port),
        ("http://::1", "it has no host"),
        ("http://s3cr3t:s3cr3t/s3cr3t@h", port),
        ("http://[::1", "its IPv6 address lacks the closing bracket"),
        ("http://[h]", "what it has in brackets is no IPv6 address"),
        (
            "http://[127.0.0.1]",
            "what it has in brackets is no IPv6 address",
        ),
        (
            "http://[fe80::1%eth0]",
            "what it has in brackets is no IPv6 address",
        ),
        (
            "http://[fe80::1%25]",
            "the zone of its IPv6 address is no name",
        ),
        (
            "http://[fe80::1%25e\n]",
            "the zone of its IPv6 address is no name",
        ),
        ("http://[::1]80", port),
        ("http://h?x", query),
        ("http://h#x", query),
        ("http://h/a?x=1", query),
        ("http://h/a#x", query),
        ("http://s3cr3t:s3cr3t?s3cr3t@h", query),
        ("http://h/a b", path),
        ("http://h/a\nb", path),
        ("http://h/é", path),
        ("http://s3cr3t%:x@h", percent),
        ("http://u:s3cr3t%4@h", percent),
        ("http://u:s3cr3t%zz@h", percent),
        ("http://u:s3cr3t%+1@h", percent),
    ] {
        assert_eq!(Endpoint::parse(url).err().as_deref(), Some(why), "{url:?}");
    }
}

#[test]
#[cfg(feature = "tls")]
fn https_urls() {
    // URL, host, port, Host header, Display
    for (url, host, port, header, shown) in [
        ("https://h", "h", 443, "h", "https://h"),
        ("HTTPS://H:443/", "h", 443, "h", "https://h"),
        ("https://h:80", "h", 80, "h:80", "https://h:80"),
        ("https://u:p@h/a", "h", 443, "h", "https://***@h/a"),
        (
            "https://h.example.",
            "h.example.",
            443,
            "h.example.",
            "https://h.example.",
        ),
        (
            "https://10.0.0.1:1",
            "10.0.0.1",
            1,
            "10.0.0.1:1",
            "https://10.0.0.1:1",
        ),
        (
            "https://[fe80::1%25eth0]",
            "fe80::1%eth0",
            443,
            "[fe80::1]",
            "https://[fe80::1]",
        ),
    ] {
        let endpoint = Endpoint::parse(url).unwrap_or_else(|why| panic!("{url}: {why}"));
        assert_eq!(endpoint.host(), host, "{url}");
        assert_eq!(endpoint.port(), port, "{url}");
        assert_eq!(endpoint.host_header(), header, "{url}");
        assert_eq!(endpoint.to_string(), shown, "{url}");
    }
    for host in ["a~b", "a..b", "-", "127.1"] {
        let why = Endpoint::parse(&format!("https://{host}")).unwrap_err();
        assert_eq!(why, "its host is no name for a certificate", "{host}");
    }
}

#[test]
#[cfg(not(feature = "tls"))]
fn https_urls_without_tls() {
    for url in ["https://h", "HTTPS://s3cr3t:s3cr3t@h"] {
        let why = Endpoint::parse(url).unwrap_err();
        assert_eq!(why, "https needs the feature tls, which this build lacks");
    }
}

#[test]
fn user_and_password_become_basic_credentials() {
    for (userinfo, header) in [
        // RFC 7617, 2 and 2.1.
        (
            "Aladdin:open%20sesame",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),
        ("test:123%C2%A3", "Basic dGVzdDoxMjPCow=="),
        ("u", "Basic dTo="),
        ("u:", "Basic dTo="),
        (":p", "Basic OnA="),
        ("u:a:b", "Basic dTphOmI="),
        ("u:a@b", "Basic dTphQGI="),
        ("u:a%3ab", "Basic dTphOmI="),
        ("u:a+b", "Basic dTphK2I="),
        ("u:%00%ff", "Basic dToA/w=="),
    ] {
        let endpoint = Endpoint::parse(&format!("http://{userinfo}@h")).unwrap();
        let value = endpoint.authorization().expect(userinfo);
        assert_eq!(value, header, "{userinfo}");
        let debug = format!("{endpoint:?}");
        assert!(!debug.contains(header), "{debug}");
    }
    assert!(
        Endpoint::parse("http://h")
            .unwrap()
            .authorization()
            .is_none()
    );
}
