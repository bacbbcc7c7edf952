//! How many connections each address has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The addresses that have connections, or had one that they abused. There are no more of them than of these two together.
#[derive(Clone, Default)]
pub(super) struct Addresses(Arc<Mutex<HashMap<IpAddr, Seats>>>);

/// The seats of an address.
#[derive(Default)]
struct Seats {
    taken: usize,
    /// How many of them are kept for connections that were abused, and have ended.
    abused: usize,
}

/// An address has no seat left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// Whether it has abused some of them.
    pub(super) is_abuser: bool,
}

/// A connection that is counted for its address, until this is dropped.
pub(super) struct Seat {
    addresses: Addresses,
    network: IpAddr,
    is_abused: bool,
}

impl Addresses {
    /// A seat for one more connection from an address, if it has fewer than `most`.
    pub(super) fn seat(&self, address: IpAddr, most: NonZeroUsize) -> Result<Seat, Full> {
        let network = network(address);
        let mut all = self.lock();
        let seats = all.entry(network).or_default();
        if seats.taken >= most.get() {
            return Err(Full {
                is_abuser: seats.abused > 0,
            });
        }
        seats.taken += 1;
        Ok(Seat {
            addresses: self.clone(),
            network,
            is_abused: false,
        })
    }

    /// Poisoned by nothing: no line under it panics.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Seats>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Notes that its connection was abused.
    pub(super) fn mark_abused(&mut self) {
        if !self.is_abused
            && let Some(seats) = self.addresses.lock().get_mut(&self.network)
        {
            seats.abused += 1;
            self.is_abused = true;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.addresses.lock();
        if let Some(seats) = all.get_mut(&self.network) {
            seats.taken -= 1;
            seats.abused -= usize::from(self.is_abused);
            if seats.taken == 0 {
                all.remove(&self.network);
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

    const INNOCENT: Option<Full> = Some(Full { is_abuser: false });

    #[test]
    fn an_address_has_as_many_seats_as_it_may_and_gets_back_what_it_leaves() {
        let addresses = Addresses::default();
        let two = NonZeroUsize::new(2).unwrap();
        let seat = |address: &str| addresses.seat(address.parse().unwrap(), two);
        let first = seat("10.0.0.1").unwrap();
        // The same address in its other form.
        let second = seat("::ffff:10.0.0.1").unwrap();
        assert_eq!(seat("10.0.0.1").err(), INNOCENT);
        let other = seat("10.0.0.2").unwrap();
        drop(first);
        let third = seat("10.0.0.1").unwrap();
        assert_eq!(seat("10.0.0.1").err(), INNOCENT);
        drop((second, third, other));
        assert!(addresses.lock().is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let addresses = Addresses::default();
        let seat = |address: &str| addresses.seat(address.parse().unwrap(), NonZeroUsize::MIN);
        let _first = seat("2001:db8:0:1::1").unwrap();
        assert_eq!(seat("2001:db8:0:1:ffff::2").err(), INNOCENT);
        assert!(seat("2001:db8:0:2::1").is_ok());
    }

    #[test]
    fn an_address_is_an_abuser_as_long_as_it_pays_for_that() {
        let addresses = Addresses::default();
        let seat = || addresses.seat("10.0.0.1".parse().unwrap(), NonZeroUsize::MIN);
        let mut abused = seat().unwrap();
        abused.mark_abused();
        abused.mark_abused();
        assert_eq!(seat().err(), Some(Full { is_abuser: true }));
        drop(abused);
        let _other = seat().unwrap();
        assert_eq!(seat().err(), INNOCENT);
    }
}
