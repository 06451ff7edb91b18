//! Places for connections: how many there may be in all and from one address, and who has to go when they are taken.
//!
//! A new connection is let in even when all places are taken, as long as some client keeps the server waiting: those
//! that have done so longest are closed for it. So nobody can lock others out, least of all those who ask for health,
//! by holding connections. Only when every place is at work is the new connection refused.

use super::connection::Meter;
use crate::telemetry::{ConnectionMetrics, Refusal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Descriptors that are kept for everything but clients: files, the database, the storage.
const OTHER_DESCRIPTORS: u64 = 512;

/// The most connections that are told to go at once to make room, and the most that may be open beyond a bound until
/// those that were told have gone.
const LEAVING: usize = 256;

/// How many go when the places, `of` in all, are taken: some at once, because finding them means looking at all.
fn closed_at_once(of: usize) -> usize {
    (of / 64).clamp(1, LEAVING)
}

/// Whom an address stands for: who has one IPv6 address has all of its /64.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let network = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

/// How many connections the process may have, once its soft limit of descriptors is as high as it may be.
pub(super) fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let left = now.map_or(u64::MAX, |all| all.saturating_sub(OTHER_DESCRIPTORS));
    usize::try_from(left).unwrap_or(usize::MAX).max(1)
}

/// All places of a listener.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    /// `usize::MAX`: no bound.
    per_client: usize,
    metrics: Arc<ConnectionMetrics>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    open: usize,
    /// Of those, connections that were told to go.
    leaving: usize,
    next: u64,
    clients: HashMap<IpAddr, Client>,
}

#[derive(Debug, Default)]
struct Client {
    leaving: usize,
    open: HashMap<u64, Arc<Meter>>,
}

/// Tells those to go that have waited longest for their clients. Returns how many.
fn close_longest<'a>(all: impl Iterator<Item = &'a Arc<Meter>>, count: usize) -> usize {
    let mut waiting: Vec<_> = all
        .filter(|meter| !meter.is_unwanted())
        .filter_map(|meter| Some((meter.waiting()?, meter)))
        .collect();
    if waiting.len() > count {
        waiting.select_nth_unstable_by_key(count, |(since, _)| *since);
        waiting.truncate(count);
    }
    for (_, meter) in &waiting {
        meter.close();
    }
    waiting.len()
}

impl Places {
    /// `most` in all, `per_client` for each address; 0: no bound for an address.
    pub(super) fn new(
        most: usize,
        per_client: usize,
        metrics: Arc<ConnectionMetrics>,
    ) -> Arc<Self> {
        let per_client = match per_client {
            0 => usize::MAX,
            bound => bound,
        };
        Arc::new(Self {
            most,
            per_client,
            metrics,
            taken: Mutex::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a new connection, or says that there is none.
    pub(super) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        meter: &Arc<Meter>,
    ) -> Result<Place, Refusal> {
        let client = client(address);
        let mut taken = self.taken();
        let entered = self.make_room(&mut taken, client);
        if let Err(refusal) = entered {
            self.metrics.refused.inc(refusal);
            return Err(refusal);
        }
        let number = taken.next;
        taken.next += 1;
        taken.open += 1;
        let of_client = taken.clients.entry(client).or_default();
        of_client.open.insert(number, Arc::clone(meter));
        self.metrics.open.inc();
        Ok(Place {
            places: Arc::clone(self),
            client,
            number,
        })
    }

    fn make_room(&self, taken: &mut Taken, client: IpAddr) -> Result<(), Refusal> {
        if let Some(of_client) = taken.clients.get_mut(&client) {
            let open = of_client.open.len();
            let batch = closed_at_once(self.per_client);
            if open - of_client.leaving >= self.per_client {
                let closed = close_longest(of_client.open.values(), batch);
                of_client.leaving += closed;
                taken.leaving += closed;
            }
            if open - of_client.leaving >= self.per_client
                || open >= self.per_client.saturating_add(LEAVING)
            {
                return Err(Refusal::Address);
            }
        }
        if taken.open - taken.leaving >= self.most {
            self.close_some(taken);
        }
        if taken.open - taken.leaving >= self.most || taken.open >= self.most + LEAVING {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    fn close_some(&self, taken: &mut Taken) {
        let all = taken
            .clients
            .values()
            .flat_map(|client| client.open.values());
        close_longest(all, closed_at_once(self.most));
        // Whose they were is only known now.
        taken.leaving = 0;
        for client in taken.clients.values_mut() {
            let leaving = client.open.values().filter(|meter| meter.is_unwanted());
            client.leaving = leaving.count();
            taken.leaving += client.leaving;
        }
    }

    /// Closes some connections: the process has no descriptors left.
    pub(super) fn relieve(&self) {
        self.close_some(&mut self.taken());
    }
}

/// A place that is taken, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: IpAddr,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guard = self.places.taken();
        let taken = &mut *guard;
        let Some(client) = taken.clients.get_mut(&self.client) else {
            return;
        };
        let Some(meter) = client.open.remove(&self.number) else {
            return;
        };
        taken.open -= 1;
        if meter.is_unwanted() {
            client.leaving -= 1;
            taken.leaving -= 1;
        }
        if client.open.is_empty() {
            taken.clients.remove(&self.client);
        }
        self.places.metrics.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Server;
    use crate::http::connection::Patience;
    use crate::telemetry::Metrics;
    use tokio::time::Instant;

    fn places(most: usize, per_client: usize) -> Arc<Places> {
        Places::new(most, per_client, Metrics::new().connections.clone())
    }

    fn meter() -> Arc<Meter> {
        Meter::new(Instant::now(), Patience::from(&Server::default()), false)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        assert_eq!(client(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_eq!(
            client(address("2001:db8:1:2:3:4:5:6")),
            address("2001:db8:1:2::")
        );
        assert_ne!(client(address("192.0.2.1")), client(address("192.0.2.2")));
    }

    #[test]
    fn who_waits_for_his_client_goes_first_and_who_works_stays() {
        let places = places(3, 0);
        let (working, waiting, new) = (meter(), meter(), meter());
        let _busy = working.asked();
        let _a = places.enter(address("192.0.2.1"), &working).unwrap();
        let _b = places.enter(address("192.0.2.2"), &working).unwrap();
        let c = places.enter(address("192.0.2.3"), &waiting).unwrap();
        let d = places.enter(address("192.0.2.4"), &new).unwrap();
        assert!(waiting.is_unwanted() && !working.is_unwanted() && !new.is_unwanted());
        drop(c);
        assert_eq!(places.taken().open, 3);
        assert_eq!(places.taken().leaving, 0);
        // Now nobody waits: the last one does not get in.
        let _also_busy = new.asked();
        let refused = places.enter(address("192.0.2.5"), &meter());
        assert_eq!(refused.unwrap_err(), Refusal::Full);
        assert_eq!(places.metrics.refused.get(Refusal::Full), 1);
        drop(d);
        assert!(places.enter(address("192.0.2.5"), &meter()).is_ok());
        assert_eq!(places.metrics.open.get(), 2);
    }

    #[test]
    fn an_address_that_has_all_of_its_places_takes_none_of_others() {
        let places = places(100, 2);
        let (greedy, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let meters = [meter(), meter()];
        let _busy = meters.each_ref().map(Meter::asked);
        let _held: Vec<_> = meters
            .iter()
            .map(|meter| places.enter(greedy, meter).unwrap())
            .collect();
        assert_eq!(
            places.enter(greedy, &meter()).unwrap_err(),
            Refusal::Address
        );
        let others = [meter(), meter(), meter()];
        let _b = places.enter(other, &others[0]).unwrap();
        let _c = places.enter(other, &others[1]).unwrap();
        // Its own that wait make room for its new ones.
        let _d = places.enter(other, &others[2]).unwrap();
        let gone = others.iter().filter(|meter| meter.is_unwanted());
        assert_eq!(gone.count(), 1);
        // Those that were told to go are not waited for, but there is an end to it.
        let mut more = Vec::new();
        while let Ok(place) = places.enter(other, &meter()) {
            more.push(place);
        }
        assert_eq!(more.len(), LEAVING - 1);
    }
}
