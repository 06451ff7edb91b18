//! Who asks with a token that no login made: programs with a service token, and people whom the identity provider vouches for.
//!
//! Names of these callers hold a colon, which no administrator's name may: nobody is taken for somebody else.

use super::auth::{self, Caller};
use super::{Core, ServiceError};
use crate::config::OAuth;
use crate::db::service_tokens as rows;
use crate::domain::token::token_hash;
use crate::domain::{Role, Secret, grant};
use crate::upstream::oidc::{Claims, OidcError, Provider};
use crate::upstream::oidc_code::Journey;
use crate::wire::admin::LoginAnswer;
use std::sync::Arc;
use std::time::Duration;

/// What the name of a program begins with.
const PROGRAM: &str = "token:";
/// What the name of a person begins with whom the identity provider vouches for.
const VOUCHED: &str = "oidc:";
/// When to try again while the identity provider is away.
const RETRY: Duration = Duration::from_secs(5);
/// The longest name or address of a person, in bytes.
const MAX_NAME: usize = 200;

/// A caller with a service token, for something in a section of the API.
pub(super) async fn by_service_token(
    core: &Core,
    token: &Secret,
    section: &str,
    source: String,
) -> Result<Caller, ServiceError> {
    let conn = core.db.conn().await?;
    let live = rows::find(&conn, &token_hash(token.expose()))
        .await?
        .ok_or_else(|| {
            ServiceError::Unauthorized(
                "the service token is not known, has expired or was revoked; `livepatch-admin admin token add` makes a new one"
                    .to_owned(),
            )
        })?;
    if live.stale {
        rows::touch(&conn, live.id).await?;
    }
    let role = grant::role_in(&live.scopes, section).ok_or_else(|| {
        ServiceError::Forbidden(format!(
            "the service token {} has the scopes {}, and none of them is for {section}",
            live.name,
            grant::list(&live.scopes)
        ))
    })?;
    Ok(Caller {
        name: format!("{PROGRAM}{}", live.name),
        role,
        source,
        session: None,
        is_program: true,
    })
}

/// The identity provider, if one is configured and this looks like a token of such.
pub(super) fn provider_for<'c>(core: &'c Core, token: &Secret) -> Option<&'c Arc<Provider>> {
    let provider = core.provider.as_ref()?;
    // Three parts with dots between; no token of ours has a dot.
    (token.expose().bytes().filter(|byte| *byte == b'.').count() == 2).then_some(provider)
}

/// A caller whom the identity provider vouches for.
pub(super) async fn by_provider(
    core: &Core,
    provider: &Arc<Provider>,
    token: &Secret,
    source: String,
) -> Result<Caller, ServiceError> {
    let claims = provider.claims(token.expose()).await.map_err(told)?;
    let (name, role) = judge(&core.config.auth.oauth, &claims)?;
    Ok(Caller {
        name: format!("{VOUCHED}{name}"),
        role,
        source,
        session: None,
        is_program: false,
    })
}

/// Whether a session's owner is one whom the identity provider vouched for, and who may still come in. The role stays as it
/// was then, until the session ends.
pub(super) fn is_vouched(core: &Core, subject: &str) -> bool {
    let config = &core.config.auth.oauth;
    let name = subject.strip_prefix(VOUCHED);
    config.signs_in()
        && name.is_some_and(|name| config.allowed_emails.is_empty() || lists(config, name))
}

/// Whether two callers may be one person: they have one name, or the provider vouches for both and only one has an address.
pub fn may_be_one(one: &str, other: &str) -> bool {
    let is_without_email = |name: &str| Some(name.strip_prefix(VOUCHED)?.starts_with(':'));
    one == other
        || is_without_email(one)
            .zip(is_without_email(other))
            .is_some_and(|(one, other)| one != other)
}

/// A new way to the identity provider: where a browser goes, and what it keeps meanwhile. `None` if people do not sign in there.
pub fn set_out(core: &Core, redirect: &str) -> Result<Option<(String, Journey)>, ServiceError> {
    let Some(provider) = &core.provider else {
        return Ok(None);
    };
    let mut random = [[0u8; 32]; 3];
    for part in &mut random {
        openssl::rand::rand_bytes(part)
            .map_err(|e| ServiceError::Internal(format!("no random numbers: {e}")))?;
    }
    let journey = Journey::new(random);
    let url = provider.sign_in_url(redirect, &journey);
    Ok(url.map(|url| (url, journey)))
}

/// Opens a session for whoever came back from the identity provider with a code.
pub async fn arrive(
    core: &Core,
    code: &str,
    redirect: &str,
    journey: &Journey,
    source: String,
) -> Result<LoginAnswer, ServiceError> {
    let provider = core.provider.as_ref().ok_or_else(|| {
        ServiceError::Invalid("nobody signs in at an identity provider here".to_owned())
    })?;
    let claims = provider.redeem(code, redirect, journey).await;
    let (name, role) = judge(&core.config.auth.oauth, &claims.map_err(told)?)?;
    auth::open_session(core, &format!("{VOUCHED}{name}"), role, source).await
}

fn told(error: OidcError) -> ServiceError {
    match error {
        OidcError::Refused(why) => {
            ServiceError::Unauthorized(format!("the token is refused: {why}"))
        }
        OidcError::Away(why) => ServiceError::Away {
            why: format!("the identity provider cannot be asked: {why}"),
            retry_after: RETRY,
        },
    }
}

fn lists(config: &OAuth, email: &str) -> bool {
    let mut allowed = config.allowed_emails.iter();
    allowed.any(|allowed| allowed.eq_ignore_ascii_case(email))
}

/// What somebody is called and may do, by the configuration. A name is the address in small letters; without one it is a colon and
/// the exact `sub`, so that no `sub` is taken for somebody's address.
fn judge(config: &OAuth, claims: &Claims) -> Result<(String, Role), ServiceError> {
    let name = claims.email.as_ref().unwrap_or(&claims.subject);
    let is_plain = |name: &str| {
        !name.is_empty()
            && name.len() <= MAX_NAME
            && name.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let is_address = claims.email.is_some();
    if !is_plain(name) || (is_address && name.starts_with(':')) {
        return Err(ServiceError::Unauthorized(
            "the token is refused: it names nobody by a plain `email` or `sub`".to_owned(),
        ));
    }
    let is_allowed = claims
        .email
        .as_ref()
        .is_some_and(|email| lists(config, email));
    if !config.allowed_emails.is_empty() && !is_allowed {
        return Err(ServiceError::Forbidden(format!(
            "{name} is not among auth.oauth.allowed-email-ids"
        )));
    }
    let by_claim = config
        .roles
        .iter()
        .filter(|(value, _)| claims.groups.contains(value))
        .map(|(_, role)| *role)
        .max();
    let role = by_claim.or(config.default_role.filter(|_| is_allowed));
    let called = if is_address {
        name.to_ascii_lowercase()
    } else {
        format!(":{name}")
    };
    role.map(|role| (called, role)).ok_or_else(|| {
        ServiceError::Forbidden(format!(
            "{name} has no role here: no value of the claim {:?} is in auth.oauth.roles",
            config.role_claim
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(emails: &[&str], roles: &[(&str, Role)], default_role: Option<Role>) -> OAuth {
        OAuth {
            allowed_emails: emails.iter().map(|email| (*email).to_owned()).collect(),
            roles: roles
                .iter()
                .map(|(value, role)| ((*value).to_owned(), *role))
                .collect(),
            default_role,
            ..OAuth::default()
        }
    }

    fn claims(email: Option<&str>, groups: &[&str]) -> Claims {
        Claims {
            subject: "s-1".to_owned(),
            email: email.map(str::to_owned),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }

    #[test]
    fn roles_come_from_the_claim_or_the_list() {
        let listed = config(&["Anna@example.com"], &[], Some(Role::Admin));
        let anna = claims(Some("anna@EXAMPLE.com"), &[]);
        assert_eq!(
            judge(&listed, &anna).unwrap(),
            ("anna@example.com".to_owned(), Role::Admin)
        );
        assert!(judge(&listed, &claims(Some("eve@example.com"), &[])).is_err());
        assert!(judge(&listed, &claims(None, &[])).is_err());

        let by_group = config(
            &[],
            &[("ops", Role::Operator), ("root", Role::Admin)],
            Some(Role::Admin),
        );
        let role = |groups: &[&str]| judge(&by_group, &claims(None, groups)).map(|found| found.1);
        assert_eq!(role(&["ops"]).unwrap(), Role::Operator);
        assert_eq!(role(&["ops", "root", "other"]).unwrap(), Role::Admin);
        // The default is for those who are listed, not for everybody whom the provider knows.
        assert!(role(&["other"]).is_err());

        let both = config(&["anna@example.com"], &[("ops", Role::Operator)], None);
        assert!(judge(&both, &claims(Some("eve@example.com"), &["ops"])).is_err());
        assert!(judge(&both, &anna).is_err());
    }

    #[test]
    fn a_subject_is_nobodys_address() {
        let all = config(&[], &[("ops", Role::Viewer)], None);
        let anna = judge(&all, &claims(Some("Anna@example.com"), &["ops"])).unwrap();
        let mut bare = claims(None, &["ops"]);
        bare.subject = "anna@example.com".to_owned();
        let other = judge(&all, &bare).unwrap();
        assert_eq!(
            (anna.0.as_str(), other.0.as_str()),
            ("anna@example.com", ":anna@example.com")
        );
        bare.subject = "S-1".to_owned();
        assert_eq!(judge(&all, &bare).unwrap().0, ":S-1");
        assert!(judge(&all, &claims(Some(":s-1"), &["ops"])).is_err());
    }

    #[test]
    fn one_person_does_not_pass_for_two() {
        for (one, other, may) in [
            ("anna", "anna", true),
            ("anna", "berta", false),
            ("anna", "oidc:anna", false),
            ("oidc:anna@example.com", "oidc:anna@example.com", true),
            ("oidc:anna@example.com", "oidc:berta@example.com", false),
            ("oidc:anna@example.com", "oidc::S-1", true),
            ("oidc::S-1", "oidc::S-2", false),
            ("oidc::S-1", "token:robot", false),
        ] {
            assert_eq!(may_be_one(one, other), may, "{one} {other}");
            assert_eq!(may_be_one(other, one), may, "{other} {one}");
        }
    }

    #[test]
    fn names_are_plain() {
        let all = config(&[], &[("ops", Role::Viewer)], None);
        for bad in ["", "a b", "a\nb", "ü", &"a".repeat(201)] {
            assert!(
                judge(&all, &claims(Some(bad), &["ops"])).is_err(),
                "{bad:?}"
            );
        }
    }
}
