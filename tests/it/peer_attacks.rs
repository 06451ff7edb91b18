//! The driver for another server against a front that lies, alters, cuts and stalls: every attack is refused with its
//! reason, what broke off is resumed, and the next honest answer is taken.

use crate::peer_serving::sync_token;
use crate::support::front::{Asked, Do, Front, Got};
use crate::support::kmod;
use crate::support::server::TestServer;
use futures_util::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use livepatch_onprem::config::{PatchSync, SyncDriver};
use livepatch_onprem::domain::{Secret, Sha256, SigningKey};
use livepatch_onprem::index::{IntakeFilter, Known, State, seal};
use livepatch_onprem::service::peer::keys;
use livepatch_onprem::upstream::{Listing, Offered, Peer, Question, Upstream, UpstreamError};
use livepatch_onprem::wire::sync::{Head, SignedHead};
use serde_json::json;
use std::time::Duration;

/// A server with two patches, the front before it, and a driver that goes through the front.
pub(crate) struct Site {
    pub(crate) server: TestServer,
    pub(crate) front: Front,
    pub(crate) config: PatchSync,
    pub(crate) known: Option<(Known, State)>,
}

impl Site {
    pub(crate) async fn new() -> Self {
        let server = TestServer::with_two_patches().await;
        let front = Front::before(&server.url).await;
        let config = PatchSync {
            enabled: true,
            driver: SyncDriver::Peer,
            upstream_url: front.url.clone(),
            token: Secret::new(sync_token(&server, "below", "edge").await),
            stall_timeout: Duration::from_secs(20),
            ..PatchSync::default()
        };
        Self {
            server,
            front,
            config,
            known: None,
        }
    }

    pub(crate) fn driver(&self) -> Peer {
        Peer::new(&self.config, Vec::new()).unwrap()
    }

    async fn list_at(&self, now: Timestamp) -> Result<Listing, UpstreamError> {
        let question = Question {
            filter: &IntakeFilter::default(),
            known: self.known.as_ref().map(|(known, state)| (known, state)),
            now,
        };
        self.driver().list(question).await
    }

    pub(crate) async fn list(&self) -> Result<Listing, UpstreamError> {
        self.list_at(Timestamp::now()).await
    }

    /// Lists and remembers, as a run that went well does.
    pub(crate) async fn follow(&mut self) -> Listing {
        let listing = self.list().await.unwrap();
        let (head, state) = listing.index.clone().unwrap();
        self.known = Some((
            Known {
                deployment: head.deployment,
                tier: head.tier,
                version: head.version,
                digest: head.digest,
                issued_at: head.issued_at,
                keys: head.keys,
            },
            state,
        ));
        listing
    }

    /// Fails with this code under this rule, and goes well again without it.
    pub(crate) async fn refused(
        &self,
        code: &str,
        word: &str,
        rule: impl Fn(&Asked) -> Do + Send + Sync + 'static,
    ) {
        self.front.set(rule);
        let error = self.list().await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(word), "{word}: {error}");
        let token = self.config.token.expose();
        assert!(!error.to_string().contains(token), "{error}");
        self.front.set(|_| Do::Pass);
        self.list().await.unwrap();
    }

    /// Makes a change at the server that gives its index another version.
    async fn change(&self, version: &str) {
        let body = json!({ "tier": "beta" });
        let path = format!("patches/{version}/promote");
        self.server.admin("POST", &path, body).await;
    }

    async fn raw(&self, path: &str) -> Vec<u8> {
        let url = format!("{}/v1/sync/{path}", self.server.url);
        let request = self.server.http.get(url);
        let answer = request.bearer_auth(self.config.token.expose()).send().await;
        answer.unwrap().bytes().await.unwrap().to_vec()
    }

    pub(crate) async fn read(&self, payload: &Offered) -> Result<Vec<u8>, String> {
        let driver = self.driver();
        let body = driver.open(payload).await.map_err(|e| e.to_string())?;
        let chunks: Vec<bytes::Bytes> = body.try_collect().await.map_err(|e| e.to_string())?;
        Ok(chunks.concat())
    }
}

pub(crate) fn newest(listing: &Listing) -> Offered {
    let name = kmod::bundle_name("107.1");
    let found = listing.payloads.iter().find(|p| p.name == name);
    found.unwrap().clone()
}

fn content() -> Vec<u8> {
    std::fs::read(kmod::real_bundle("107.1", "patched")).unwrap()
}

/// Changes the head in an answer and signs it with the server's own key, which nobody else has: what a stolen key could do.
fn resigned(keys: Vec<SigningKey>, change: impl Fn(&mut Head) + Send + Sync + 'static) -> Do {
    Do::alter(move |got| {
        let sealed: SignedHead = serde_json::from_slice(&got.body).unwrap();
        let mut head: Head = serde_json::from_str(&sealed.signed).unwrap();
        change(&mut head);
        got.body = serde_json::to_vec(&seal(&head, &keys).unwrap()).unwrap();
    })
}

#[tokio::test]
async fn an_index_is_followed_by_differences_and_not_fetched_again() {
    let mut site = Site::new().await;
    let listing = site.follow().await;
    assert_eq!(listing.payloads.len(), 2);
    assert!(listing.unreadable.is_empty());
    let payload = newest(&listing);
    assert_eq!(payload.size, Some(content().len() as u64));
    assert_eq!(payload.sha256, Some(Sha256::of(&content())));

    // Nothing new: only the head is asked for.
    site.front.set(|_| Do::Pass);
    site.follow().await;
    assert_eq!(site.front.asked().len(), 1);

    // Something new: only what differs comes.
    site.change("106.1").await;
    site.front.set(|_| Do::Pass);
    let whole = site.known.clone().unwrap().1.bytes();
    let length = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&length);
    site.front.set(move |asked| {
        let seen = std::sync::Arc::clone(&seen);
        if asked.is_state() {
            Do::alter(move |got| {
                seen.store(got.body.len(), std::sync::atomic::Ordering::Relaxed);
            })
        } else {
            Do::Pass
        }
    });
    let before = site.known.clone().unwrap().0;
    site.follow().await;
    let after = site.known.clone().unwrap().0;
    assert!(after.version > before.version && after.digest != before.digest);
    let came = length.load(std::sync::atomic::Ordering::Relaxed) as u64;
    assert!(came > 0 && came < whole / 4, "{came} of {whole}");

    // A difference that does not fit is made good by the whole.
    site.change("107.1").await;
    site.front.set(|asked| {
        if asked.path.contains("since") {
            Do::alter(|got| got.body.extend_from_slice(b"-{\"nothing\":1}\n"))
        } else {
            Do::Pass
        }
    });
    site.follow().await;
    assert_eq!(site.front.asked().len(), 3);
    // So is a memory that was damaged here.
    site.known.as_mut().unwrap().1 = State::default();
    site.front.set(|_| Do::Pass);
    assert_eq!(site.follow().await.payloads.len(), 2);
    assert!(!site.front.asked()[1].path.contains("since"));
}

#[tokio::test]
async fn old_swapped_and_altered_indexes_are_refused() {
    let mut site = Site::new().await;
    site.follow().await;
    let old = site.raw("head").await;
    site.change("106.1").await;
    site.follow().await;

    let replayed = old.clone();
    site.refused("rollback", "rollback", move |asked| {
        if asked.is_head() {
            Do::Instead(Got::new(200, replayed.clone()))
        } else {
            Do::Pass
        }
    })
    .await;
    // Nobody renews it any more.
    site.front.set(|_| Do::Pass);
    let later = Timestamp::now() + SignedDuration::from_hours(25);
    let error = site.list_at(later).await.unwrap_err();
    assert_eq!(error.code(), "freeze", "{error}");

    let at_head = |change: fn(&mut Got)| {
        move |asked: &Asked| {
            if asked.is_head() {
                Do::alter(change)
            } else {
                Do::Pass
            }
        }
    };
    site.refused(
        "altered",
        "altered",
        at_head(|got| {
            let text = String::from_utf8(got.body.clone()).unwrap();
            got.body = text
                .replace("\\\"payloads\\\":2", "\\\"payloads\\\":3")
                .into_bytes();
        }),
    )
    .await;
    site.refused(
        "unreadable",
        "cannot be read",
        at_head(|got| got.body = b"<html>".to_vec()),
    )
    .await;
    site.refused(
        "endless-data",
        "endless",
        at_head(|got| got.body = vec![b' '; 65 << 10]),
    )
    .await;

    // What only the holder of the key could say.
    let keys = keys::signing(&site.server.core().db).await.unwrap().all();
    for (code, change) in [
        (
            "mix-and-match",
            (|h| h.digest = Sha256([1; 32])) as fn(&mut Head),
        ),
        ("fast-forward", |h| h.version = u64::MAX),
        ("other-tier", |h| h.tier = "beta".parse().unwrap()),
        ("other-deployment", |h| {
            h.deployment = uuid::Uuid::from_u128(7);
        }),
        ("endless-data", |h| h.bytes = u64::MAX),
        ("format", |h| h.format = 2),
        ("from-the-future", |h| {
            h.issued_at = Timestamp::now() + SignedDuration::from_hours(1);
        }),
    ] {
        let keys = keys.clone();
        site.refused(code, "", move |asked| {
            if asked.is_head() {
                resigned(keys.clone(), change)
            } else {
                Do::Pass
            }
        })
        .await;
    }
    // Another key, which the front would have made itself.
    let stranger = vec![SigningKey::from_seed(&[9; 32]).unwrap()];
    site.refused("wrong-key", "keys trust", move |asked| {
        if asked.is_head() {
            resigned(stranger.clone(), |_| {})
        } else {
            Do::Pass
        }
    })
    .await;
}

#[tokio::test]
async fn states_that_are_not_the_heads_are_refused() {
    let site = Site::new().await;
    let head: SignedHead = serde_json::from_slice(&site.raw("head").await).unwrap();
    let head: Head = serde_json::from_str(&head.signed).unwrap();
    let old = site.raw(&format!("state?version={}", head.version)).await;
    site.change("106.1").await;
    let at_state = |action: Do| {
        move |asked: &Asked| {
            if asked.is_state() {
                action.clone()
            } else {
                Do::Pass
            }
        }
    };
    let swap = Do::alter(move |got| got.body.clone_from(&old));
    site.refused("other-state", "signed", at_state(swap)).await;
    let flip = Do::alter(|got| got.body[100] ^= 1);
    site.refused("other-state", "SHA-256", at_state(flip)).await;
    let short = Do::alter(|got| got.body.truncate(100));
    site.refused("other-state", "SHA-256", at_state(short))
        .await;
    let long = Do::alter(|got| got.body.push(b'\n'));
    site.refused("other-state", "more than", at_state(long))
        .await;
    site.refused("other-state", "more than", at_state(Do::Endless))
        .await;
    let form = Do::alter(|got| got.headers.retain(|(name, _)| name != "content-type"));
    site.refused("nonsense", "form", at_state(form)).await;
    let moved = Do::Instead(Got::new(409, "{}"));
    site.refused("unreachable", "faster", at_state(moved)).await;
    let cut = Do::Cut(50);
    site.refused("unreachable", "", at_state(cut)).await;
    let gone = Do::Instead(Got::new(500, "inside"));
    site.refused("unreachable", "500", at_state(gone)).await;
    let lost = Do::Instead(Got::new(404, ""));
    site.refused("denied", "404", at_state(lost)).await;
}

#[tokio::test]
async fn a_payload_is_resumed_wherever_it_breaks_off() {
    let mut site = Site::new().await;
    let payload = newest(&site.follow().await);
    let content = content();
    let size = content.len();
    site.front.set(|_| Do::Pass);
    assert_eq!(site.read(&payload).await.unwrap(), content);
    assert_eq!(site.front.asked().len(), 1);
    for at in [0, 1, 511, size / 3, size / 2, size - 1, size] {
        site.front.set(move |asked| {
            if asked.nth == 0 {
                Do::Cut(at)
            } else {
                Do::Pass
            }
        });
        assert!(site.read(&payload).await.unwrap() == content, "cut at {at}");
        let asked = site.front.asked();
        assert!((1..=2).contains(&asked.len()), "{at}: {}", asked.len());
        // A reset may take the last bytes with it; what came is never asked for again.
        if let Some(again) = asked.get(1) {
            assert!(again.is_payload());
            let head = again.head.to_lowercase();
            assert!(head.contains("if-match: \""), "{head}");
            assert!(at < 512 || head.contains("range: bytes="), "{at}: {head}");
        }
    }
    // Again and again, within bounds.
    site.front.set(|asked| {
        if asked.nth < 4 {
            Do::Cut(200)
        } else {
            Do::Pass
        }
    });
    assert!(site.read(&payload).await.unwrap() == content);
}

#[tokio::test]
async fn payloads_that_are_not_what_the_index_says_are_refused() {
    let mut site = Site::new().await;
    let payload = newest(&site.follow().await);
    let size = content().len();
    let refused = async |word: &str, rule: fn(&Asked) -> Do| {
        site.front.set(rule);
        let error = site.read(&payload).await.unwrap_err();
        assert!(error.contains(word), "{word}: {error}");
        site.front.set(|_| Do::Pass);
        assert_eq!(site.read(&payload).await.unwrap().len(), size);
    };
    refused("endless", |_| Do::Endless).await;
    refused("announces", |_| Do::alter(|got| got.length = Some(1 << 40))).await;
    refused("announces", |_| Do::alter(|got| got.body.truncate(100))).await;
    refused("announces", |_| Do::alter(|got| got.body.push(0))).await;
    refused("another content", |_| Do::Instead(Got::new(412, ""))).await;
    refused("404", |_| Do::Instead(Got::new(404, ""))).await;
    refused("503", |_| Do::Instead(Got::new(503, ""))).await;
    refused("begins anew", |asked| {
        if asked.nth == 0 {
            Do::Cut(600)
        } else {
            Do::alter(|got| got.status = 200)
        }
    })
    .await;
    refused("instead of", |asked| {
        if asked.nth == 0 {
            Do::Cut(600)
        } else {
            Do::alter(|got| {
                got.headers.retain(|(name, _)| name != "content-range");
            })
        }
    })
    .await;
    // An altered byte is not this driver's to find: the digest it hands on is.
    site.front.set(|_| Do::alter(|got| got.body[50] ^= 1));
    let altered = site.read(&payload).await.unwrap();
    assert_ne!(Some(Sha256::of(&altered)), payload.sha256);
}
