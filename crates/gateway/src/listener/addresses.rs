//! How many connections each address has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The addresses that have connections, or had one that they abused, each with how many. There are no more of them than of
/// these two together.
#[derive(Clone, Default)]
pub(super) struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection that is counted for its address, until this is dropped.
pub(super) struct Seat {
    addresses: Addresses,
    network: IpAddr,
}

impl Addresses {
    /// A seat for one more connection from an address, if it has fewer than `most`.
    pub(super) fn seat(&self, address: IpAddr, most: NonZeroUsize) -> Option<Seat> {
        let network = network(address);
        let mut counts = self.lock();
        let count = counts.entry(network).or_default();
        if *count >= most.get() {
            return None;
        }
        *count += 1;
        Some(Seat {
            addresses: self.clone(),
            network,
        })
    }

    /// Poisoned by nothing: no line under it panics.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.addresses.lock();
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// What is counted as one: whoever has an IPv6 address has the 64 bits behind its network as well.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_as_many_seats_as_it_may_and_gets_back_what_it_leaves() {
        let addresses = Addresses::default();
        let two = NonZeroUsize::new(2).unwrap();
        let seat = |address: &str| addresses.seat(address.parse().unwrap(), two);
        let first = seat("10.0.0.1").unwrap();
        // The same address in its other form.
        let second = seat("::ffff:10.0.0.1").unwrap();
        assert!(seat("10.0.0.1").is_none());
        let other = seat("10.0.0.2").unwrap();
        drop(first);
        let third = seat("10.0.0.1").unwrap();
        assert!(seat("10.0.0.1").is_none());
        drop((second, third, other));
        assert!(addresses.lock().is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let addresses = Addresses::default();
        let seat = |address: &str| addresses.seat(address.parse().unwrap(), NonZeroUsize::MIN);
        let _first = seat("2001:db8:0:1::1").unwrap();
        assert!(seat("2001:db8:0:1:ffff::2").is_none());
        assert!(seat("2001:db8:0:2::1").is_some());
    }
}
