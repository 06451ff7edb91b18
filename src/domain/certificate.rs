//! What certificates say, as values of ours.

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::x509::X509NameRef;

/// The parts of a name that are shown; more is no name.
const PARTS: usize = 20;

/// The moment that a certificate names; one beyond all calendars is the last one there is.
pub fn timestamp(time: &Asn1TimeRef) -> Result<jiff::Timestamp, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(since.days) * 86_400 + i64::from(since.secs);
    Ok(jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX))
}

/// A name as text, `CN=..., O=...`; it may hold anything.
pub fn name(name: &X509NameRef) -> String {
    let part = |entry: &openssl::x509::X509NameEntryRef| {
        let key = entry.object().nid().short_name().unwrap_or("?");
        let value = entry
            .data()
            .to_string()
            .unwrap_or_else(|_| hex::encode(entry.data().as_slice()));
        format!("{key}={value}")
    };
    let parts: Vec<String> = name.entries().take(PARTS).map(part).collect();
    parts.join(", ")
}

/// A private key in PEM, in the form (PKCS #8) that HTTP clients take; `None` if it is none, or has a passphrase.
pub fn pkcs8(pem: &[u8]) -> Option<Vec<u8>> {
    // Without an answer of ours OpenSSL would ask on the terminal.
    let key = PKey::private_key_from_pem_callback(pem, |_| Ok(0)).ok()?;
    key.private_key_to_pem_pkcs8().ok()
}
