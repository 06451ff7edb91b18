//! What a webhook's receiver can check, and when a delivery is tried again. The scheme is that of the public
//! "Standard Webhooks" specification: `webhook-id`, `webhook-timestamp` and `webhook-signature: v1,<base64>`, where the
//! signature is HMAC-SHA256 over `id.timestamp.body` with the bytes behind `whsec_`.

use super::{ParseError, Secret, Sha256};
use base64::{Engine, prelude::BASE64_STANDARD};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use std::time::Duration;

/// What a secret begins with.
pub const PREFIX: &str = "whsec_";
/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_hours(12);

/// A secret made of these random bytes.
pub fn secret(random: [u8; 32]) -> Secret {
    Secret::new(format!("{PREFIX}{}", BASE64_STANDARD.encode(random)))
}

/// What a signature is made with.
#[derive(Clone)]
pub struct SigningSecret(Vec<u8>);

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningSecret([secret])")
    }
}

impl SigningSecret {
    /// Reads `whsec_...`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        // The text stays out of the error.
        let wrong = || ParseError::new("webhook secret", "", "whsec_ and base64 expected");
        let encoded = text.strip_prefix(PREFIX).ok_or_else(wrong)?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| wrong())?;
        if bytes.is_empty() {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }

    /// The value of `webhook-signature`. `timestamp` is in unix seconds.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> Result<String, ErrorStack> {
        let key = PKey::hmac(&self.0)?;
        let mut signer = Signer::new(MessageDigest::sha256(), &key)?;
        signer.update(format!("{id}.{timestamp}.").as_bytes())?;
        signer.update(body)?;
        Ok(format!(
            "v1,{}",
            BASE64_STANDARD.encode(signer.sign_to_vec()?)
        ))
    }
}

/// The pause after attempt number `attempts` (from 1) of a delivery failed: doubled each time, up to twelve hours, and up to a fifth
/// longer or shorter by what `seed` says, so that many deliveries that failed together do not come back together.
pub fn pause(seed: &str, attempts: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
    let pause = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
    let digest = Sha256::of(format!("{seed} {attempts}").as_bytes());
    let mut first = [0; 4];
    first.copy_from_slice(&digest.0[..4]);
    let share = f64::from(u32::from_be_bytes(first)) / f64::from(u32::MAX);
    pause.mul_f64(0.8 + 0.4 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret
            .sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#,
            )
            .unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_read_back_and_never_shown() {
        let made = secret([7; 32]);
        let read = SigningSecret::parse(made.expose()).unwrap();
        assert_eq!(read.0, [7; 32]);
        assert_eq!(format!("{read:?}"), "SigningSecret([secret])");
        for wrong in ["", "whsec_", "whsec_%", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            let error = SigningSecret::parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("MfKQ"), "{error}");
        }
    }

    #[test]
    fn pauses_double_and_differ_and_fifteen_attempts_take_about_a_day() {
        for attempts in 1..12 {
            let middle = 5.0 * f64::from(1 << (attempts - 1));
            let pause = pause("a", attempts).as_secs_f64();
            assert!((0.8 * middle..=1.2 * middle).contains(&pause), "{pause}");
        }
        assert_ne!(pause("a", 3), pause("b", 3));
        assert_eq!(pause("a", 3), pause("a", 3));
        assert!(pause("a", u32::MAX) <= LONGEST_PAUSE.mul_f64(1.2));
        let all: Duration = (1..15).map(|attempts| pause("a", attempts)).sum();
        let day = Duration::from_hours(24);
        assert!(all > day.mul_f64(0.7) && all < day.mul_f64(1.3), "{all:?}");
    }
}
