//! Which hosts are reached without a proxy: the rule of Go's
//! `golang.org/x/net/http/httpproxy`, which the Go agent follows.

use std::net::IpAddr;

/// Whether a request to `host` (lower case, an IPv6 address without brackets)
/// goes past the proxy, with `list` from `NO_PROXY`. What is malformed in the
/// list is ignored.
#[must_use]
pub(super) fn is_exempt(list: &str, host: &str, port: u16) -> bool {
    // The zone of an address is no part of a name (CVE-2025-22870).
    let address = host.split('%').next().unwrap_or_default();
    let address = address.parse().ok().map(|ip: IpAddr| ip.to_canonical());
    host == "localhost"
        || address.is_some_and(|ip| ip.is_loopback())
        || list.split(',').any(|entry| {
            let entry = entry.trim().to_lowercase();
            entry == "*" || matches(&entry, host, address, port)
        })
}

/// Whether an entry, in lower case, means the host. One of addresses never
/// means a name, nor the other way round.
fn matches(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if let Some((network, bits)) = network(entry) {
        return address.is_some_and(|ip| is_in(ip, network, bits));
    }
    let (name, its_port) = split_host_port(entry).unwrap_or((entry, ""));
    if !its_port.is_empty() && its_port != port.to_string() {
        return false;
    }
    match (name.parse::<IpAddr>(), address) {
        (Ok(named), Some(ip)) => named.to_canonical() == ip,
        (Ok(_), None) | (Err(_), Some(_)) => false,
        (Err(_), None) => is_under(
            name.strip_prefix('*').filter(is_dotted).unwrap_or(name),
            host,
        ),
    }
}

fn is_dotted(name: &&str) -> bool {
    name.starts_with('.')
}

/// Whether `host` is `domain` or below it; with a leading dot, only below it.
fn is_under(domain: &str, host: &str) -> bool {
    let Some(before) = host.strip_suffix(domain) else {
        return false;
    };
    !domain.is_empty() && (domain.starts_with('.') || before.is_empty() || before.ends_with('.'))
}

/// An address and the bits of it that count: `10.0.0.0/8`.
fn network(entry: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = entry.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.parse().ok().filter(|bits| *bits <= most)?;
    Some((address, bits))
}

fn is_in(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differ = u32::from(address) ^ u32::from(network);
            differ.leading_zeros() >= bits
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differ = u128::from(address) ^ u128::from(network);
            differ.leading_zeros() >= bits
        }
        _ => false,
    }
}

/// Go's `net.SplitHostPort`: `host:port` or `[IPv6]:port`.
fn split_host_port(entry: &str) -> Option<(&str, &str)> {
    match entry.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => entry
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':')),
    }
}

#[cfg(test)]
mod tests {
    use super::is_exempt;

    /// The list, the table and the reasons of Go's own test of this rule.
    const LIST: &str = "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, \
         192.168.1.3:80, 10.0.0.0/30, 2001:db8::52:0:1, [2001:db8::52:0:2]:443, \
         [2001:db8::52:0:3]:80, 2002:db8:a::45/64";

    #[test]
    fn what_go_decides_about_each_host_of_its_own_test() {
        for (host, exempt) in [
            // Never proxy localhost.
            ("localhost", true),
            ("127.0.0.1", true),
            ("127.0.0.2", true),
            ("::1", true),
            ("::2", false),                       // not a loopback address
            ("192.168.1.1", true),                // matches exact IPv4
            ("192.168.1.2", false),               // ports do not match
            ("192.168.1.3", true),                // matches exact IPv4:port
            ("192.168.1.4", false),               // no match
            ("10.0.0.2", true),                   // matches IPv4/CIDR
            ("2001:db8::52:0:1", true),           // matches exact IPv6
            ("2001:db8::52:0:2", false),          // no match
            ("2001:db8::52:0:3", true),           // matches exact [IPv6]:port
            ("2002:db8:a::123", true),            // matches IPv6/CIDR
            ("fe80::424b:c8be:1643:a1b6", false), // no match
            ("barbaz.net", false),                // does not match as .barbaz.net
            ("www.barbaz.net", true),             // does match as .barbaz.net
            ("foobar.com", true),                 // does match as foobar.com
            ("www.foobar.com", true),             // NO_PROXY includes "foobar.com"
            ("foofoobar.com", false),             // not match as a part of foobar.com
            ("baz.com", false),                   // not match as a part of barbaz.com
            ("localhost.net", false),             // not match as suffix of address
            ("local.localhost", false),           // not match as prefix as address
            ("barbarbaz.net", false),             // not match, wrong domain
            ("wildcard.io", false),               // does not match as *.wildcard.io
            ("nested.wildcard.io", true),         // match as *.wildcard.io
            ("awildcard.io", false),              // not a match because of '*'
        ] {
            assert_eq!(is_exempt(LIST, host, 80), exempt, "{host}");
            assert!(is_exempt("*", host, 80), "{host}");
            assert!(is_exempt("a.test, * ,b.test", host, 80), "{host}");
        }
    }

    /// The documentation of `httpproxy.Config.NoProxy`, sentence by sentence.
    #[test]
    fn what_the_documentation_of_go_says() {
        for (list, host, port, exempt) in [
            // "Each value is represented by an IP address prefix (1.2.3.4),"
            ("1.2.3.4", "1.2.3.4", 80, true),
            // "an IP address prefix in CIDR notation (1.2.3.4/8),"
            ("1.2.3.4/8", "1.200.0.1", 80, true),
            ("1.2.3.4/8", "2.2.3.4", 80, false),
            ("0.0.0.0/0", "9.9.9.9", 80, true),
            ("0.0.0.0/0", "2001:db8::1", 80, false),
            ("::/0", "2001:db8::1", 80, true),
            // "a domain name, or a special DNS label (*)."
            ("foo.com", "foo.com", 80, true),
            // "An IP address prefix and domain name can also include a literal
            // port number (1.2.3.4:80)."
            ("1.2.3.4:80", "1.2.3.4", 80, true),
            ("1.2.3.4:80", "1.2.3.4", 81, false),
            ("foo.com:443", "foo.com", 443, true),
            ("foo.com:443", "a.foo.com", 443, true),
            ("foo.com:443", "foo.com", 80, false),
            ("foo.com:", "foo.com", 80, true),
            // "A domain name matches that name and all subdomains."
            ("foo.com", "bar.foo.com", 80, true),
            ("FOO.com", "bar.foo.com", 80, true),
            ("foo.com", "foo.com.test", 80, false),
            // "A domain name with a leading "." matches subdomains only."
            (".y.com", "x.y.com", 80, true),
            (".y.com", "y.com", 80, false),
            // "A best effort is made to parse the string and errors are ignored."
            ("", "foo.com", 80, false),
            (" , ,", "foo.com", 80, false),
            (":1", "foo.com", 1, false),
            ("[", "foo.com", 80, false),
            ("1.2.3.4/33", "1.2.3.4", 80, false),
            ("1.2.3.4/x, foo.com", "foo.com", 80, true),
            ("a:b:c", "c", 80, false),
            // Only together with a port are there brackets.
            ("[2001:db8::1]", "2001:db8::1", 80, false),
            // Names and addresses are never mixed up.
            ("3.4", "1.2.3.4", 80, false),
            ("example.com", "1000::%.example.com", 123, false),
            ("fe80::1", "fe80::1%eth0", 80, true),
            ("", "::ffff:127.0.0.1", 80, true),
            ("1.2.3.4", "::ffff:1.2.3.4", 80, true),
        ] {
            assert_eq!(is_exempt(list, host, port), exempt, "{list} {host} {port}");
        }
    }
}
