//! Hot payloads in memory, and one fetch however many wait.
//!
//! Only verified bytes are kept. The cache is bounded by bytes and by entries, entries expire, and the least recently
//! used goes first. With the cache disabled, requests that arrive while a payload is being fetched still share it.
//! What is being fetched and what slow clients still hold after it left the cache is bounded by a budget of its own;
//! beyond it a fetch waits, and then fails with [`BlobError::Busy`].

use super::backend::within;
use super::content::Expect;
use super::error::BlobError;
use super::key::Key;
use super::store::Store;
use crate::config;
use crate::domain::Sha256;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use moka::future::Cache;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory for payloads that are being fetched or sent without being in the cache, in bytes.
const IN_FLIGHT: u64 = 128 << 20;
/// The unit in which memory is counted, in bytes.
const UNIT: u64 = 4 << 10;
/// How long a fetch waits for memory.
const PATIENCE: Duration = Duration::from_secs(10);

type Fetched = Result<Bytes, Arc<BlobError>>;
type Flight = Shared<BoxFuture<'static, Fetched>>;

/// The cache. Cloning is cheap; all clones share the memory.
#[derive(Clone)]
pub struct PatchCache {
    shared: Arc<Inner>,
}

struct Inner {
    store: Store,
    kept: Option<Cache<Sha256, Bytes>>,
    /// The largest payload that is worth keeping, in bytes.
    largest: u64,
    flights: Mutex<HashMap<Sha256, Flight>>,
    memory: Arc<Semaphore>,
    units: u32,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

/// The cache in figures. Counters rise from the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Requests answered from memory.
    pub hits: u64,
    /// Requests that had to fetch, or to wait for one who did.
    pub misses: u64,
    /// Payloads that left for want of room or by age.
    pub evictions: u64,
    /// Payloads kept now.
    pub length: u64,
    /// Bytes kept now.
    pub bytes: u64,
}

impl std::fmt::Debug for PatchCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PatchCache")
            .field(&self.shared.store)
            .finish()
    }
}

/// Payload bytes and the share of memory they occupy, given back when the last of them was sent.
struct Held {
    bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PatchCache {
    /// Makes an empty cache over `store`.
    pub fn new(config: &config::PatchCache, store: Store) -> Self {
        let counts = Arc::new(Counts::default());
        let enabled = config.enabled && config.size > 0 && config.max_bytes > 0;
        let kept = enabled.then(|| {
            // One measure for both bounds: an entry weighs its bytes, and at least its share of the whole, so that
            // there are never more entries than allowed.
            let share = config.max_bytes.div_ceil(config.size);
            let evicted = counts.clone();
            Cache::builder()
                .max_capacity(config.max_bytes)
                .weigher(move |_, bytes: &Bytes| {
                    u32::try_from(share.max(bytes.len() as u64)).unwrap_or(u32::MAX)
                })
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(config.ttl)
                .eviction_listener(move |_, _, cause| {
                    if matches!(cause, RemovalCause::Size | RemovalCause::Expired) {
                        evicted.evictions.fetch_add(1, Ordering::Relaxed);
                    }
                })
                .build()
        });
        let kept_bytes = if enabled { config.max_bytes } else { 0 };
        let units = u32::try_from((kept_bytes + IN_FLIGHT) / UNIT).unwrap_or(u32::MAX);
        let units = units.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self {
            shared: Arc::new(Inner {
                store,
                kept,
                largest: kept_bytes / 2,
                flights: Mutex::default(),
                memory: Arc::new(Semaphore::new(units as usize)),
                units,
                counts,
            }),
        }
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Whether a payload of `size` bytes would be kept; others are better sent from a file, where there is one.
    pub(super) fn keeps(&self, size: u64) -> bool {
        self.shared.kept.is_some() && size <= self.shared.largest
    }

    /// The payload, verified, from memory or fetched once for all who ask now. A failure is not kept: the next request
    /// asks the storage again.
    pub async fn get(&self, sha256: Sha256, size: u64) -> Result<Bytes, Arc<BlobError>> {
        if let Some(kept) = &self.shared.kept
            && let Some(bytes) = kept.get(&sha256).await
        {
            self.shared.counts.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(bytes);
        }
        self.shared.counts.misses.fetch_add(1, Ordering::Relaxed);
        self.flight(Expect { sha256, size }).await
    }

    /// Joins the fetch that is under way, or starts one.
    fn flight(&self, expect: Expect) -> Flight {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&expect.sha256) {
            return flight.clone();
        }
        // A task of its own: a client that gives up must not end the fetch that others wait for.
        let task = tokio::spawn(self.clone().fetch(expect));
        let flight: Flight = async move {
            task.await
                .unwrap_or_else(|_| Err(Arc::new(BlobError::Busy)))
        }
        .boxed()
        .shared();
        flights.insert(expect.sha256, flight.clone());
        flight
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<Sha256, Flight>> {
        self.shared
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(self, expect: Expect) -> Fetched {
        // However this task ends, nobody may find its flight afterwards.
        struct Landing(PatchCache, Sha256);
        impl Drop for Landing {
            fn drop(&mut self) {
                self.0.flights().remove(&self.1);
            }
        }
        let landing = Landing(self, expect.sha256);
        let inner = &landing.0.shared;
        // Someone who missed the cache may come here just after another's fetch filled it.
        if let Some(kept) = &inner.kept
            && let Some(bytes) = kept.get(&expect.sha256).await
        {
            return Ok(bytes);
        }
        let bytes = inner.load(expect).await.map_err(Arc::new)?;
        if let Some(kept) = &inner.kept
            && landing.0.keeps(expect.size)
        {
            kept.insert(expect.sha256, bytes.clone()).await;
        }
        Ok(bytes)
    }

    /// Drops a payload from memory, e.g. when it was withdrawn.
    pub async fn invalidate(&self, sha256: Sha256) {
        if let Some(kept) = &self.shared.kept {
            kept.invalidate(&sha256).await;
        }
    }

    /// The figures now.
    pub async fn stats(&self) -> CacheStats {
        let counts = &self.shared.counts;
        let (mut length, mut bytes) = (0, 0);
        if let Some(kept) = &self.shared.kept {
            kept.run_pending_tasks().await;
            for (_, payload) in kept {
                length += 1;
                bytes += payload.len() as u64;
            }
        }
        CacheStats {
            hits: counts.hits.load(Ordering::Relaxed),
            misses: counts.misses.load(Ordering::Relaxed),
            evictions: counts.evictions.load(Ordering::Relaxed),
            length,
            bytes,
        }
    }
}

impl Inner {
    async fn load(&self, expect: Expect) -> Result<Bytes, BlobError> {
        // More than all there is would wait for ever; such a payload waits until it is alone instead.
        let units = u32::try_from(expect.size.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let units = units.clamp(1, self.units);
        let memory = match self.memory.clone().try_acquire_many_owned(units) {
            Ok(memory) => memory,
            Err(_) => self.wait(units).await?,
        };
        let key = Key::Payload(expect.sha256);
        let get = self.store.get_verified(&key, expect.sha256, expect.size);
        let bytes = get.await?;
        Ok(Bytes::from_owner(Held {
            bytes,
            _memory: memory,
        }))
    }

    async fn wait(&self, units: u32) -> Result<OwnedSemaphorePermit, BlobError> {
        // What was evicted but not yet let go may be all that is needed.
        if let Some(kept) = &self.kept {
            kept.run_pending_tasks().await;
        }
        let memory = self.memory.clone().acquire_many_owned(units);
        let place = self.store.place().into();
        within(&place, "wait for memory", PATIENCE, async {
            memory.await.map_err(|_| BlobError::Busy)
        })
        .await
        .map_err(|_| BlobError::Busy)
    }
}
