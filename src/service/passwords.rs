//! Passwords of administrators: argon2id for those in the database, bcrypt for those given in the configuration.
//!
//! Hashing runs on the blocking pool, so many at once as there are processors: each takes 19 MiB and tens of
//! milliseconds. A name that does not exist costs as much as one that does.

use super::ServiceError;
use crate::domain::Secret;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The least number of characters of a password.
pub const MIN_LENGTH: usize = 12;

/// The most bytes of a password.
const MAX_BYTES: usize = 1024;

/// How long a login may wait for its turn.
const WAIT: Duration = Duration::from_secs(5);

/// Of the process, because it bounds the memory of the process.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    Semaphore::new(processors.clamp(1, 8))
});

/// What the password of a name that does not exist is compared with.
static NOBODY: LazyLock<Option<String>> =
    LazyLock::new(|| hash_now(&uuid::Uuid::new_v4().to_string()).ok());

/// What a password is compared with.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// argon2id hash in the database; `None`: no administrator of this name there.
    pub database: Option<String>,
    /// bcrypt hash in the configuration; `None`: no user of this name there.
    pub configured: Option<Secret>,
    /// Any bcrypt hash of the configuration, to spend the same time on a name that is not there.
    pub decoy: Option<Secret>,
}

/// A turn to hash a password.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held, not read")] SemaphorePermit<'static>);

/// Waits for a turn, for a bounded time.
pub async fn turn() -> Result<Turn, ServiceError> {
    match tokio::time::timeout(WAIT, TURNS.acquire()).await {
        Ok(Ok(permit)) => Ok(Turn(permit)),
        _ => Err(ServiceError::Unavailable(
            "too many logins at once".to_owned(),
        )),
    }
}

fn hash_now(password: &str) -> Result<String, argon2::password_hash::Error> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
}

fn verify_now(stored: &Stored, password: &str) -> bool {
    let reference = stored.database.as_ref().or(NOBODY.as_ref());
    let argon = reference
        .and_then(|text| PasswordHash::new(text).ok())
        .is_some_and(|hash| {
            Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok()
        });
    let bcrypt = stored
        .configured
        .as_ref()
        .or(stored.decoy.as_ref())
        .is_some_and(|hash| bcrypt::verify(password, hash.expose()).unwrap_or(false));
    // The configuration wins: whoever can write it can always get in.
    if stored.configured.is_some() {
        bcrypt
    } else {
        argon && stored.database.is_some()
    }
}

/// Whether the password is right; always works through the same steps.
pub async fn verify(turn: Turn, stored: Stored, password: &Secret) -> Result<bool, ServiceError> {
    if password.expose().len() > MAX_BYTES {
        return Ok(false);
    }
    let password = password.clone();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        verify_now(&stored, password.expose())
    })
    .await
    .map_err(|e| ServiceError::Internal(format!("checking a password failed: {e}")))
}

/// Hashes a new password.
pub async fn hash(password: &Secret) -> Result<String, ServiceError> {
    let turn = turn().await?;
    let password = password.clone();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        hash_now(password.expose())
    })
    .await
    .map_err(|e| ServiceError::Internal(format!("hashing a password failed: {e}")))?
    .map_err(|e| ServiceError::Internal(format!("hashing a password failed: {e}")))
}

/// Refuses passwords that are too easy to guess or too long to hash.
pub fn check(name: &str, password: &Secret) -> Result<(), ServiceError> {
    let text = password.expose();
    let refuse = |why: String| Err(ServiceError::Invalid(why));
    if text.chars().count() < MIN_LENGTH {
        return refuse(format!(
            "the password is too short: at least {MIN_LENGTH} characters are needed"
        ));
    }
    if text.len() > MAX_BYTES {
        return refuse(format!(
            "the password is too long: at most {MAX_BYTES} bytes are taken"
        ));
    }
    if text.chars().any(char::is_control) {
        return refuse("the password must not hold control characters".to_owned());
    }
    if text.eq_ignore_ascii_case(name) {
        return refuse("the password must not be the name".to_owned());
    }
    let first = text.chars().next();
    if text.chars().all(|c| Some(c) == first) {
        return refuse("the password must not be one character repeated".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(database: Option<&str>, configured: Option<&str>) -> Stored {
        let bcrypt = |password| Secret::new(bcrypt::hash(password, 4).unwrap());
        Stored {
            database: database.map(|password| hash_now(password).unwrap()),
            configured: configured.map(bcrypt),
            decoy: Some(bcrypt("decoy")),
        }
    }

    #[test]
    fn only_the_right_password_of_the_right_place_is_right() {
        assert!(verify_now(&stored(Some("good"), None), "good"));
        assert!(!verify_now(&stored(Some("good"), None), "decoy"));
        assert!(!verify_now(&stored(None, None), "decoy"));
        let both = stored(Some("in the database"), Some("configured"));
        assert!(verify_now(&both, "configured"));
        assert!(!verify_now(&both, "in the database"));
        let apache = Stored {
            configured: Some(Secret::new(
                bcrypt::hash_with_result("secret", 4)
                    .unwrap()
                    .format_for_version(bcrypt::Version::TwoY),
            )),
            ..Stored::default()
        };
        assert!(verify_now(&apache, "secret"));
    }

    #[test]
    fn weak_passwords_are_refused() {
        for bad in [
            "",
            "elevenchars",
            "administrator-1",
            "aaaaaaaaaaaaaaaa",
            "with\u{7}control character",
            &"long".repeat(300),
        ] {
            assert!(
                check("Administrator-1", &Secret::new(bad)).is_err(),
                "{bad:?}"
            );
        }
        assert!(check("admin", &Secret::new("zwölf Zeichen")).is_ok());
    }
}
