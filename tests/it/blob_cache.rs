//! The cache: one fetch however many wait, bounds, ages, and failures that are not kept.

use crate::blob::{Bench, noise, payload};
use crate::support::s3::{answer, false_server, settings};
use livepatch_onprem::blob::{BlobError, CacheStats, PatchCache, Store};
use livepatch_onprem::config::{self, Database};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

fn config(enabled: bool) -> config::PatchCache {
    config::PatchCache {
        enabled,
        ..config::PatchCache::default()
    }
}

async fn stored(bench: &Bench, bytes: &[u8]) -> livepatch_onprem::blob::Expect {
    let (key, expect) = payload(bytes);
    bench
        .store
        .put(&key, bytes.to_vec().into(), expect)
        .await
        .unwrap();
    expect
}

/// A store whose object is `bytes` and whose every GET waits for a permit of the gate; also the number of GETs.
async fn gated(bytes: Vec<u8>) -> (Store, Arc<Semaphore>, Arc<AtomicUsize>) {
    let gate = Arc::new(Semaphore::new(0));
    let gets = Arc::new(AtomicUsize::new(0));
    let (open, count) = (gate.clone(), gets.clone());
    let url = false_server(Arc::new(move |_| {
        let (open, bytes) = (open.clone(), bytes.clone());
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            open.acquire().await.unwrap().forget();
            answer(200, "\"t\"", bytes)
        })
    }))
    .await;
    let config = settings(&url, "b", "k", "s");
    let store = Store::open(&config, &Database::default()).await.unwrap();
    (store, gate, gets)
}

async fn until(cache: &PatchCache, misses: u64) {
    while cache.stats().await.misses < misses {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn two_hundred_who_ask_at_once_cause_one_fetch() {
    let bytes = noise(300_000, 1);
    let (_, expect) = payload(&bytes);
    for enabled in [true, false] {
        let (store, gate, gets) = gated(bytes.clone()).await;
        let cache = PatchCache::new(&config(enabled), store);
        let waiting: Vec<_> = (0..200)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.get(expect.sha256, expect.size).await })
            })
            .collect();
        until(&cache, 200).await;
        gate.add_permits(1);
        for waiter in waiting {
            assert!(waiter.await.unwrap().unwrap() == bytes);
        }
        assert_eq!(gets.load(Ordering::SeqCst), 1);
        if enabled {
            cache.get(expect.sha256, expect.size).await.unwrap();
            assert_eq!(gets.load(Ordering::SeqCst), 1);
            let expected = CacheStats {
                hits: 1,
                misses: 200,
                evictions: 0,
                length: 1,
                bytes: 300_000,
            };
            assert_eq!(cache.stats().await, expected);
        } else {
            gate.add_permits(1);
            cache.get(expect.sha256, expect.size).await.unwrap();
            assert_eq!(gets.load(Ordering::SeqCst), 2, "nothing is kept");
            assert_eq!(cache.stats().await.length, 0);
        }
    }
}

#[tokio::test]
async fn one_who_gives_up_does_not_end_the_fetch_of_the_others() {
    let bytes = noise(10_000, 1);
    let (_, expect) = payload(&bytes);
    let (store, gate, gets) = gated(bytes).await;
    let cache = PatchCache::new(&config(true), store);
    let get = || {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get(expect.sha256, expect.size).await })
    };
    let first = get();
    until(&cache, 1).await;
    while gets.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let second = get();
    until(&cache, 2).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.add_permits(1);
    second.await.unwrap().unwrap();
    assert_eq!(gets.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_failure_reaches_all_who_wait_and_is_not_kept() {
    let bytes = noise(10_000, 1);
    let (_, expect) = payload(&noise(10_000, 2));
    let (store, gate, gets) = gated(bytes).await;
    let cache = PatchCache::new(&config(true), store);
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get(expect.sha256, expect.size).await })
        })
        .collect();
    until(&cache, 10).await;
    gate.add_permits(1);
    for waiter in waiting {
        let error = waiter.await.unwrap().unwrap_err();
        assert!(matches!(*error, BlobError::Corrupt { .. }), "{error}");
    }
    assert_eq!(cache.stats().await.length, 0);
    gate.add_permits(1);
    cache.get(expect.sha256, expect.size).await.unwrap_err();
    assert_eq!(gets.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn both_bounds_hold() {
    let bench = Bench::filesystem().await;
    let mut small = Vec::new();
    for seed in 0..20 {
        small.push(stored(&bench, &noise(1_000, seed)).await);
    }
    let big = stored(&bench, &noise(60_000, 99)).await;
    let tight = config::PatchCache {
        size: 4,
        max_bytes: 100_000,
        ..config(true)
    };
    let cache = PatchCache::new(&tight, bench.store.clone());
    for expect in &small {
        cache.get(expect.sha256, expect.size).await.unwrap();
    }
    let stats = cache.stats().await;
    assert_eq!((stats.length, stats.bytes, stats.evictions), (4, 4_000, 16));
    // The last used are the ones kept.
    let last = small[19];
    cache.get(last.sha256, last.size).await.unwrap();
    assert_eq!(cache.stats().await.hits, 1);
    // More than half of all is served, and not kept.
    cache.get(big.sha256, big.size).await.unwrap();
    assert_eq!(cache.stats().await.length, 4);
}

#[tokio::test]
async fn entries_age_and_can_be_dropped() {
    let bench = Bench::filesystem().await;
    let expect = stored(&bench, &noise(1_000, 1)).await;
    let brief = config::PatchCache {
        ttl: Duration::from_millis(5),
        ..config(true)
    };
    let cache = PatchCache::new(&brief, bench.store.clone());
    while bench.count("get") < 3 {
        cache.get(expect.sha256, expect.size).await.unwrap();
    }
    assert!(cache.stats().await.evictions >= 2);

    let before = bench.count("get");
    let cache = PatchCache::new(&config(true), bench.store.clone());
    for _ in 0..3 {
        cache.get(expect.sha256, expect.size).await.unwrap();
    }
    assert_eq!(bench.count("get"), before + 1);
    cache.invalidate(expect.sha256).await;
    assert_eq!(cache.stats().await.length, 0);
    cache.get(expect.sha256, expect.size).await.unwrap();
    assert_eq!(bench.count("get"), before + 2);
}

#[tokio::test]
async fn memory_that_slow_clients_hold_is_bounded() {
    let bench = Bench::filesystem().await;
    let mut all = Vec::new();
    for seed in 0..10 {
        all.push(stored(&bench, &noise(15 << 20, seed)).await);
    }
    let cache = PatchCache::new(&config(false), bench.store.clone());
    // Eight of 15 MiB fit into 128 MiB; whoever holds them keeps the ninth waiting.
    let mut held = Vec::new();
    for expect in &all[..8] {
        held.push(cache.get(expect.sha256, expect.size).await.unwrap());
    }
    let ninth = {
        let (cache, expect) = (cache.clone(), all[8]);
        tokio::spawn(async move { cache.get(expect.sha256, expect.size).await })
    };
    until(&cache, 9).await;
    assert_eq!(bench.count("get"), 8);
    // A slice of one is enough to hold it.
    let slice = held[0].slice(5..6);
    drop(held.remove(0));
    assert!(!ninth.is_finished());
    drop(slice);
    ninth.await.unwrap().unwrap();
    assert_eq!(bench.count("get"), 9);
}
