//! Which URLs and addresses a webhook may have: the gateway stands where others do not reach, and lends its reach to
//! nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The most characters of a URL.
const LONGEST: usize = 2_048;

/// The name that stands for this machine.
const LOCALHOST: &str = "localhost";

/// Why a webhook cannot have a URL. None of them quotes it, since it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidUrl {
    #[error("the URL cannot be read; it is https://HOST/PATH, of at most {LONGEST} characters")]
    Unreadable,
    #[error("a URL of a webhook has no user and no password: what is sent is signed instead")]
    Credentials,
    #[error("a URL of a webhook has no fragment")]
    Fragment,
    #[error("a URL of a webhook begins with https://; http:// is for localhost and loopback addresses alone")]
    Scheme,
    #[error("the address is not a public one: see --webhook-allow-private")]
    Private,
}

/// A host name has no address that may be used.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the address is not a public one")]
pub(crate) struct Refused;

/// Which addresses are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Whether also those that are not public.
    pub(crate) private: bool,
}

impl Rules {
    /// The URL, if a webhook may have it. A host that is written as loopback is taken at its word, with TLS and without: to
    /// add it is up to the operator. Every other host needs TLS and a public address.
    pub(crate) fn check(self, text: &str) -> Result<Url, InvalidUrl> {
        if text.len() > LONGEST {
            return Err(InvalidUrl::Unreadable);
        }
        let url = Url::parse(text).map_err(|_| InvalidUrl::Unreadable)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidUrl::Credentials);
        }
        if url.fragment().is_some() {
            return Err(InvalidUrl::Fragment);
        }
        let (local, allowed) = match url.host().ok_or(InvalidUrl::Unreadable)? {
            Host::Domain(name) => (name == LOCALHOST, true),
            Host::Ipv4(ip) => (ip.is_loopback(), self.takes(ip.into())),
            Host::Ipv6(ip) => (ip == Ipv6Addr::LOCALHOST, self.takes(ip.into())),
        };
        match (url.scheme(), local) {
            ("https", false) if !allowed => Err(InvalidUrl::Private),
            ("https", _) | ("http", true) => Ok(url),
            _ => Err(InvalidUrl::Scheme),
        }
    }

    /// Whether a name may lead to an address.
    fn takes(self, ip: IpAddr) -> bool {
        // What is no single machine is nobody's.
        let single = !ip.is_multicast() && !ip.is_unspecified() && ip != IpAddr::V4(Ipv4Addr::BROADCAST);
        single && (self.private || is_public(ip))
    }
}

/// Resolves names, and gives the addresses only that may be used: a connection is made to one of these and to no other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolver(pub(crate) Rules);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.0;
        Box::pin(async move {
            if name.as_str() == LOCALHOST {
                // Whatever the system says of it.
                let all = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                return Ok(Box::new(all.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs);
            }
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await?
                .filter(|address| rules.takes(address.ip()))
                .collect();
            match found.is_empty() {
                true => Err(Refused.into()),
                false => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether an address is one of the public Internet.
/// <https://www.iana.org/assignments/iana-ipv4-special-registry>, <https://www.iana.org/assignments/iana-ipv6-special-registry>
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            !(a == 0
                || ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                // Shared by the customers of a provider.
                || (a == 100 && b & 0xc0 == 64)
                // Of protocols, and for measurements.
                || (a == 192 && b == 0 && c == 0)
                || (a == 192 && b == 88 && c == 99)
                || (a == 198 && b & 0xfe == 18)
                // Multicast, and what is reserved.
                || a >= 224)
        }
        IpAddr::V6(ip) => {
            let parts = ip.segments();
            // Nothing else is handed out. IPv4 in another notation, local and link-local addresses are all outside.
            parts[0] & 0xe000 == 0x2000
                // Of protocols, Teredo, and documentation.
                && !(parts[0] == 0x2001 && (parts[1] < 0x200 || parts[1] == 0xdb8))
                && !(parts[0] == 0x3fff && parts[1] < 0x1000)
                // 6to4 holds an IPv4 address.
                && parts[0] != 0x2002
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: Rules = Rules { private: false };
    const ALL: Rules = Rules { private: true };

    #[test]
    fn a_url_has_tls_unless_it_is_of_this_machine() {
        for url in [
            "https://example.com/hook?a=b",
            "https://93.184.215.14:8443/",
            "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
            "http://localhost:1/",
            "http://127.0.0.1/",
            "http://127.255.0.1:80/",
            "http://[::1]:8080/x",
            "https://localhost/",
            "https://127.0.0.1/",
        ] {
            assert!(PUBLIC.check(url).is_ok(), "{url}");
        }
        for url in [
            "http://example.com/",
            "http://10.0.0.1/",
            "ftp://example.com/",
            "http://localhost.example/",
        ] {
            assert_eq!(ALL.check(url), Err(InvalidUrl::Scheme), "{url}");
        }
    }

    #[test]
    fn a_url_holds_nothing_secret_and_nothing_that_is_not_sent() {
        for url in [
            "https://user@example.com/",
            "https://user:canary@example.com/",
            "https://:canary@example.com/",
        ] {
            assert_eq!(PUBLIC.check(url), Err(InvalidUrl::Credentials), "{url}");
        }
        assert_eq!(PUBLIC.check("https://example.com/#a"), Err(InvalidUrl::Fragment));
        let long = format!("https://example.com/{}", "a".repeat(LONGEST));
        for url in [
            "",
            "example.com",
            "https://",
            "/hook",
            "https:///x y",
            &long,
            "data:text/plain,a",
        ] {
            assert!(PUBLIC.check(url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_address_that_is_written_in_the_url_is_a_public_one() {
        for host in [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            // Other spellings of 10.0.0.1.
            "0x0a.1",
            "167772161",
            "012.0.0.1",
            "[::]",
            "[::ffff:10.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:8.8.8.8]",
            "[::10.0.0.1]",
            "[64:ff9b::a00:1]",
            "[fc00::1]",
            "[fd12::1]",
            "[fe80::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[2001::1]",
            "[2001:db8::1]",
            "[2002:a00:1::]",
            "[3fff::1]",
        ] {
            let url = format!("https://{host}/");
            assert_eq!(PUBLIC.check(&url), Err(InvalidUrl::Private), "{host}");
        }
        for host in ["10.0.0.1", "192.168.0.1", "169.254.169.254", "[fd12::1]", "100.64.0.1"] {
            assert!(ALL.check(&format!("https://{host}/")).is_ok(), "{host}");
        }
        for host in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "[::]", "[ff02::1]"] {
            assert_eq!(
                ALL.check(&format!("https://{host}/")),
                Err(InvalidUrl::Private),
                "{host}"
            );
        }
        for host in [
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "192.0.1.1",
            "[2a00::1]",
        ] {
            assert!(PUBLIC.check(&format!("https://{host}/")).is_ok(), "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_leads_to_public_addresses_alone() {
        // A name that is an address resolves without a server; the URL's own check never lets it come here.
        for (rules, name, found) in [
            (PUBLIC, "127.0.0.1", false),
            (PUBLIC, "10.0.0.1", false),
            (PUBLIC, "93.184.215.14", true),
            (ALL, "10.0.0.1", true),
            (ALL, "224.0.0.1", false),
            (PUBLIC, LOCALHOST, true),
        ] {
            let answer = Resolver(rules).resolve(name.parse().unwrap()).await;
            assert_eq!(answer.is_ok(), found, "{name}");
            if let Err(error) = answer {
                assert!(error.is::<Refused>(), "{name}: {error}");
            }
        }
    }
}
