//! Who asks and what they may do: bearer tokens compared by their hashes in constant time.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use unisono::config::{Access, TokenDeclaration};
use unisono::core::{Error, ErrorKind, Result, Timestamp};

/// Somebody who asks.
#[derive(Clone, Debug)]
pub(crate) enum Principal {
    /// Nobody in particular, who may do everything: no tokens are declared.
    Anybody,
    /// The bearer of a token.
    Bearer(TokenDeclaration),
}

impl Principal {
    /// Who it is.
    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        match self {
            Principal::Anybody => None,
            Principal::Bearer(token) => Some(&token.name),
        }
    }

    /// Whether it may touch an entity at all.
    pub(crate) fn covers(&self, entity: &str) -> bool {
        match self {
            Principal::Anybody => true,
            Principal::Bearer(token) => token.covers(entity),
        }
    }

    /// Whether it may touch every entity there could be.
    pub(crate) fn covers_all(&self) -> bool {
        match self {
            Principal::Anybody => true,
            Principal::Bearer(token) => token.entities.iter().any(|e| e.as_ref() == "*"),
        }
    }

    /// Whether its token has run out.
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        match self {
            Principal::Anybody => false,
            Principal::Bearer(token) => token.expires.is_some_and(|expires| now >= expires),
        }
    }

    /// Fails unless this access is allowed, for the entity if one is named.
    pub(crate) fn require(&self, access: Access, entity: Option<&str>) -> Result<()> {
        let denied = |message: &'static str| {
            Error::new(ErrorKind::PermissionDenied, message)
                .hint("ask for a token with the needed access")
        };
        let allowed = match self {
            Principal::Anybody => Access::Admin,
            Principal::Bearer(token) => token.access,
        };
        if allowed < access {
            return Err(denied(match access {
                Access::Read => "the token does not allow reading",
                Access::Write => "the token does not allow writing",
                Access::Admin => "the token does not allow administration",
            }));
        }
        match entity {
            Some(entity) if !self.covers(entity) => {
                Err(denied("the token does not cover this entity").of(entity))
            }
            _ => Ok(()),
        }
    }
}

/// All declared tokens.
pub(crate) struct Authenticator {
    tokens: Vec<([u8; 32], Arc<Principal>)>,
    anybody: Arc<Principal>,
}

impl Authenticator {
    /// Knows these tokens. Without any, everybody may do everything.
    pub(crate) fn new(tokens: &[TokenDeclaration]) -> Self {
        let bearer = |token: &TokenDeclaration| Arc::new(Principal::Bearer(token.clone()));
        Authenticator {
            tokens: tokens.iter().map(|t| (t.hash, bearer(t))).collect(),
            anybody: Arc::new(Principal::Anybody),
        }
    }

    /// The one for whom everything open is served.
    pub(crate) fn anybody(&self) -> &Arc<Principal> {
        &self.anybody
    }

    /// Whether everybody is let in.
    pub(crate) fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Who sends these headers.
    pub(crate) fn principal(&self, headers: &HeaderMap, now: Timestamp) -> Result<&Arc<Principal>> {
        if self.is_open() {
            return Ok(&self.anybody);
        }
        let refuse = |message: &'static str| Error::new(ErrorKind::Unauthenticated, message);
        let header = headers.get(AUTHORIZATION).ok_or_else(|| {
            refuse("a token is needed").hint("send `Authorization: Bearer usn_…`")
        })?;
        let presented = bearer(header.as_bytes())
            .ok_or_else(|| refuse("the Authorization header is not of the form `Bearer usn_…`"))?;
        let principal = self.find(presented).ok_or_else(|| refuse("the token is not known"))?;
        if principal.is_expired(now) {
            return Err(refuse("the token has expired"));
        }
        Ok(principal)
    }

    /// Compares with every token, each in constant time, so that time tells nothing about any of them.
    fn find(&self, presented: &[u8]) -> Option<&Arc<Principal>> {
        let hash: [u8; 32] = Sha256::digest(presented).into();
        let mut found = u64::MAX;
        for (n, (expected, _)) in self.tokens.iter().enumerate() {
            let same: Choice = expected.ct_eq(&hash);
            found.conditional_assign(&(n as u64), same);
        }
        self.tokens.get(usize::try_from(found).ok()?).map(|(_, principal)| principal)
    }
}

/// The token of `Bearer <token>`; the scheme's case does not matter.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let well_formed = scheme.eq_ignore_ascii_case(b"bearer ") && token.starts_with(b"usn_");
    well_formed.then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, text: &str, access: Access, entities: &[&str]) -> TokenDeclaration {
        TokenDeclaration {
            name: name.into(),
            hash: Sha256::digest(text.as_bytes()).into(),
            access,
            entities: entities.iter().map(|e| (*e).into()).collect(),
            expires: None,
        }
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_token_is_known_by_its_hash_and_ends_when_it_expires() {
        let mut reader = token("reader", "usn_a", Access::Read, &["*"]);
        reader.expires = Some(Timestamp::from_micros_clamped(100));
        let all = Authenticator::new(&[token("writer", "usn_b", Access::Write, &["*"]), reader]);
        let ask = |value: &str, now| {
            let principal = all.principal(&headers(value), Timestamp::from_micros_clamped(now));
            principal.map(|p| p.name().unwrap().to_string()).map_err(|e| e.kind())
        };
        assert_eq!(ask("Bearer usn_a", 99), Ok("reader".into()));
        assert_eq!(ask("bearer usn_b", 99), Ok("writer".into()));
        for (value, now) in [
            ("Bearer usn_a", 100),
            ("Bearer usn_c", 0),
            ("Bearer ", 0),
            ("Bearer a", 0),
            ("usn_a", 0),
            ("Basic usn_a", 0),
            ("Bearer usn_a ", 0),
        ] {
            assert_eq!(ask(value, now), Err(ErrorKind::Unauthenticated), "{value}");
        }
        let none = all.principal(&HeaderMap::new(), Timestamp::EPOCH);
        assert_eq!(none.unwrap_err().kind(), ErrorKind::Unauthenticated);
    }

    #[test]
    fn access_includes_the_lower_levels_and_ends_at_its_entities() {
        let all = Authenticator::new(&[token("w", "usn_w", Access::Write, &["pro*", "order"])]);
        let who = all.principal(&headers("Bearer usn_w"), Timestamp::EPOCH).unwrap();
        for entity in ["product", "pro", "order"] {
            assert!(who.require(Access::Read, Some(entity)).is_ok(), "{entity}");
            assert!(who.require(Access::Write, Some(entity)).is_ok(), "{entity}");
            assert!(who.require(Access::Admin, Some(entity)).is_err(), "{entity}");
        }
        for entity in ["orders", "user", ""] {
            assert!(who.require(Access::Read, Some(entity)).is_err(), "{entity}");
        }
        assert!(!who.covers_all());
    }

    #[test]
    fn without_tokens_everybody_may_do_everything() {
        let all = Authenticator::new(&[]);
        let who = all.principal(&HeaderMap::new(), Timestamp::EPOCH).unwrap();
        assert!(who.require(Access::Admin, Some("anything")).is_ok() && who.covers_all());
    }
}
