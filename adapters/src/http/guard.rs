//! Where a request may go: which addresses, and which endpoints a message may name.
//!
//! The rule is resolve → check → connect to exactly what was checked. So the check sits in the resolver that the
//! client connects through ([`GuardedResolve`]); a name that is bound anew between two look-ups is checked anew. A
//! literal address never meets a resolver and is checked in the URL ([`check_url`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve as ClientResolve, Resolving};
use thiserror::Error;
use url::{Host, Url};

use crate::contract::Resolve;

/// Why a request was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{host} leads to {kind}, where this source may not go")]
pub struct Denied {
    /// The host as it stood in the URL.
    pub host: String,
    /// What it led to.
    pub kind: &'static str,
}

/// What a request may reach beside the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reach {
    /// Private, loopback and link-local addresses.
    pub(crate) private: bool,
    /// The addresses where clouds hand out credentials; only where the operator wrote one literally.
    pub(crate) metadata: bool,
}

/// The addresses at which clouds hand out credentials. The last three are not in any private range.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)];

/// What kind of non-public address `ip` is; `None` for a public one.
#[must_use]
pub(crate) fn non_public(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(v4) => non_public_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => non_public_v4(v4),
            None => non_public_v6(v6),
        },
    }
}

fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => METADATA_V6.contains(&v6) || embedded_v4(v6).is_some_and(|v4| METADATA_V4.contains(&v4)),
    }
}

fn non_public_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (0, ..) => Some("an unspecified address"),
        (127, ..) => Some("a loopback address"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("a private address"),
        (100, 64..=127, _) => Some("a carrier's private address"),
        (169, 254, _) => Some("a link-local address"),
        (192, 0, 0) | (192, 88, 99) | (198, 18..=19, _) => Some("a reserved address"),
        (224..=239, ..) => Some("a multicast address"),
        (240..=255, ..) => Some("a reserved address"),
        _ => None,
    }
}

fn non_public_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let first = ip.segments()[0];
    match first {
        _ if ip.is_unspecified() => Some("an unspecified address"),
        _ if ip.is_loopback() => Some("a loopback address"),
        0xfc00..=0xfdff => Some("a private address"),
        0xfe80..=0xfebf => Some("a link-local address"),
        0xfec0..=0xfeff => Some("a site-local address"),
        0xff00..=0xffff => Some("a multicast address"),
        // Teredo carries an obfuscated IPv4 address, so what it reaches cannot be said.
        0x2001 if ip.segments()[1] == 0 => Some("a tunnel's address"),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 (both prefixes) and 6to4.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let last = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(last(high, low)),
        [0x64, 0xff9b, 0 | 1, _, _, _, high, low] => Some(last(high, low)),
        [0x2002, high, low, ..] => Some(last(high, low)),
        _ => None,
    }
}

/// Whether `reach` covers `ip`.
///
/// # Errors
/// [`Denied`] with `host` where it does not.
pub(crate) fn check_ip(host: &str, ip: IpAddr, reach: Reach) -> Result<(), Denied> {
    let denied = |kind| Err(Denied { host: host.to_owned(), kind });
    if is_metadata(ip) && !reach.metadata {
        return denied("a cloud's metadata service");
    }
    match non_public(ip) {
        Some(kind) if !reach.private => denied(kind),
        _ => Ok(()),
    }
}

/// Checks what can be checked without a look-up: scheme, user info and a literal address in any spelling (the URL
/// parser has already made one of decimal, octal and hexadecimal forms).
///
/// # Errors
/// [`Denied`].
pub(crate) fn check_url(url: &Url, reach: Reach) -> Result<(), Denied> {
    let host = url.host_str().unwrap_or("").to_owned();
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Denied { host, kind: "a scheme other than http and https" });
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Denied { host, kind: "a URL with user info" });
    }
    match url.host() {
        Some(Host::Ipv4(ip)) => check_ip(&host, ip.into(), reach),
        Some(Host::Ipv6(ip)) => check_ip(&host, ip.into(), reach),
        Some(Host::Domain(_)) => Ok(()),
        None => Err(Denied { host, kind: "no host" }),
    }
}

/// Whether `url` is literally one of the metadata addresses.
#[must_use]
pub(crate) fn is_literal_metadata(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => is_metadata(ip.into()),
        Some(Host::Ipv6(ip)) => is_metadata(ip.into()),
        _ => false,
    }
}

/// Whether `url` is on this machine by its spelling.
#[must_use]
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || embedded_v4(ip).is_some_and(|v4| v4.is_loopback()),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

/// Same scheme, host and port.
#[must_use]
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

/// Whether an endpoint that came in a message is covered by an operator's `allow.endpoints`.
///
/// Both are parsed first; then scheme, host and port must be equal and the path of an entry must be a prefix by whole
/// segments. User info, an encoded slash and anything but http(s) are never covered.
#[must_use]
pub fn allows(list: &[String], url: &str) -> bool {
    let Some(asked) = parse_allowed(url) else { return false };
    list.iter().filter_map(|entry| parse_allowed(entry)).any(|entry| {
        let mut path = asked.path().split('/');
        same_origin(&entry, &asked)
            && entry.path().trim_end_matches('/').split('/').all(|segment| path.next() == Some(segment))
    })
}

fn parse_allowed(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let path = url.path().to_ascii_lowercase();
    // A server that decodes %2f would see other segments than those compared here.
    let hidden = path.contains("%2f") || path.contains("%5c") || path.contains("%00");
    (!hidden && check_url(&url, Reach { private: true, metadata: true }).is_ok()).then_some(url)
}

/// A resolver that gives only addresses within its reach.
#[derive(Debug, Clone)]
pub(crate) struct GuardedResolve {
    pub(crate) names: Arc<dyn Resolve>,
    pub(crate) reach: Reach,
}

impl ClientResolve for GuardedResolve {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, reach) = (Arc::clone(&self.names), self.reach);
        Box::pin(async move {
            let host = name.as_str();
            let found = names.resolve(host).await?;
            // One bad address among good ones is how a rebinding attack looks, so all must pass.
            for ip in &found {
                check_ip(host, *ip, reach)?;
            }
            let addresses: Vec<SocketAddr> = found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn test_every_spelling_of_a_private_address_is_denied() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.1",
            "0.0.0.0",
            "0",
            "10.0.0.1",
            "10.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "3232235777",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "100.64.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "[::1]",
            "[::]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::a00:1]",
            "[2002:7f00:1::]",
            "[2001:0:53aa:64c::1]",
            "[::ffff:0:127.0.0.1]",
            "①②⑦.0.0.1",
        ] {
            let url = Url::parse(&format!("http://{host}/")).expect(host);
            assert!(check_url(&url, Reach::default()).is_err(), "{host}");
        }
        for host in ["93.184.216.34", "8.8.8.8", "172.32.0.1", "[2606:4700::1111]", "[::ffff:8.8.8.8]", "example.org"] {
            let url = Url::parse(&format!("http://{host}/")).expect(host);
            assert_eq!(check_url(&url, Reach::default()), Ok(()), "{host}");
        }
    }

    #[test]
    fn test_metadata_needs_more_than_private() {
        let url = Url::parse("http://169.254.169.254/latest").expect("a URL");
        assert!(check_url(&url, Reach { private: true, metadata: false }).is_err());
        assert!(check_url(&url, Reach { private: true, metadata: true }).is_ok());
    }

    #[test]
    fn test_other_schemes_and_user_info_are_denied() {
        for text in [
            "file:///etc/passwd",
            "gopher://example.org/",
            "ftp://example.org/",
            "http://a@example.org/",
            "http://a:b@example.org/",
        ] {
            let url = Url::parse(text).expect(text);
            assert!(check_url(&url, Reach { private: true, metadata: true }).is_err(), "{text}");
        }
    }

    #[test]
    fn test_allow_list_compares_parsed_and_by_whole_segments() {
        let list = ["https://api.example.org/v2/".to_owned()];
        for yes in [
            "https://api.example.org/v2",
            "https://api.example.org/v2/",
            "https://api.example.org/v2/city",
            "https://API.example.org:443/v2/x/y",
            "https://api.example.org/v1/../v2/x",
        ] {
            assert!(allows(&list, yes), "{yes}");
        }
        for no in [
            "http://api.example.org/v2/",
            "https://api.example.org:444/v2/",
            "https://api.example.org/v22",
            "https://api.example.org/",
            "https://api.example.org/v2/../admin",
            "https://api.example.org/v2/%2e%2e/x",
            "https://api.example.org/v2/..%2fadmin",
            "https://api.example.org/v2%2Fx",
            "https://api.example.org./v2/",
            "https://u@api.example.org/v2/",
            "https://u:p@api.example.org/v2/",
            "https://api.example.org.evil.com/v2/",
            "https://api.example.org@evil.com/v2/",
            "https://evil.com/https://api.example.org/v2/",
            "/v2/",
            "",
            "https://api.example.org\\@evil.com/v2/",
            "file:///v2/",
            "https://api.example.org/v2\\..\\x",
        ] {
            assert!(!allows(&list, no), "{no}");
        }
        assert!(!allows(&[], "https://api.example.org/v2/"));
        assert!(!allows(&["nonsense".to_owned()], "nonsense"));
    }

    proptest! {
        #[test]
        fn test_what_is_allowed_stays_below_the_entry(tail in "[a-zA-Z0-9./%\\\\?#@:_-]{0,40}") {
            let list = ["https://api.example.org/v2/feed".to_owned()];
            let url = format!("https://api.example.org/v2/feed{tail}");
            if allows(&list, &url) {
                let parsed = Url::parse(&url).expect("allowed, so it parses");
                prop_assert_eq!(parsed.host_str(), Some("api.example.org"));
                prop_assert_eq!(parsed.port_or_known_default(), Some(443));
                prop_assert!(parsed.path() == "/v2/feed" || parsed.path().starts_with("/v2/feed/"));
            }
        }

        #[test]
        fn test_allow_list_never_crosses_hosts(url in "https?://[a-z.@:/]{1,30}") {
            let list = ["https://api.example.org/".to_owned()];
            if allows(&list, &url) {
                let parsed = Url::parse(&url).expect("parses");
                prop_assert_eq!(parsed.host_str(), Some("api.example.org"));
            }
        }

        #[test]
        fn test_v4_mapping_is_judged_as_v4(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let mapped = IpAddr::V6(v4.to_ipv6_mapped());
            prop_assert_eq!(non_public(mapped), non_public(IpAddr::V4(v4)));
        }
    }
}
