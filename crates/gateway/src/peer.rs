//! Where a request comes from: what its peer says of that is believed only if the peer is trusted.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::HeaderMap;
use proto::{ClientAddress, FACE, FORWARDED_FOR};

/// The proxies that are believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(Arc<HashSet<IpAddr>>);

/// Whether a host, as a URL has it, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

impl TrustedProxies {
    pub(crate) fn new(proxies: Vec<IpAddr>) -> Self {
        Self(Arc::new(proxies.into_iter().map(|ip| ip.to_canonical()).collect()))
    }

    /// Whether this is one of them.
    pub(crate) fn contains(&self, peer: IpAddr) -> bool {
        self.0.contains(&peer.to_canonical())
    }

    /// The client's address: each trusted proxy is believed about the one before it, and no one else. Only a trusted peer
    /// may say that the call came in over another face: the history keeps that.
    pub(crate) fn client(&self, peer: SocketAddr, headers: &mut HeaderMap) -> ClientAddress {
        let mut client = peer.ip().to_canonical();
        if !self.0.contains(&client) {
            headers.remove(FACE);
        } else {
            let forwarded = headers
                .get_all(FORWARDED_FOR)
                .iter()
                .filter_map(|value| value.to_str().ok());
            let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).collect();
            for hop in hops.into_iter().rev() {
                match hop.trim().parse::<IpAddr>() {
                    Ok(hop) if self.0.contains(&client) => client = hop.to_canonical(),
                    _ => break,
                }
            }
        }
        ClientAddress(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let proxies = TrustedProxies::new(trusted.iter().map(|ip| ip.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        proxies
            .client(SocketAddr::new(peer.parse().unwrap(), 1), &mut headers)
            .0
            .to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(client(&[], "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &["nonsense"]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_claims_behind_a_trusted_proxy_is_not_believed() {
        assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &["6.6.6.6, 1.2.3.4"]), "1.2.3.4");
        assert_eq!(
            client(&["10.0.0.1", "10.0.0.2"], "10.0.0.1", &["6.6.6.6", "1.2.3.4, 10.0.0.2"]),
            "1.2.3.4"
        );
    }

    #[test]
    fn only_a_trusted_peer_may_name_the_face() {
        for (trusted, kept) in [(vec![], false), (vec!["10.0.0.1".parse().unwrap()], true)] {
            let mut headers = HeaderMap::new();
            headers.insert(FACE, "rest".parse().unwrap());
            TrustedProxies::new(trusted).client("10.0.0.1:1".parse().unwrap(), &mut headers);
            assert_eq!(headers.contains_key(FACE), kept);
        }
    }

    #[test]
    fn an_address_has_one_form() {
        assert_eq!(client(&["10.0.0.1"], "::ffff:10.0.0.1", &["::ffff:1.2.3.4"]), "1.2.3.4");
    }
}
