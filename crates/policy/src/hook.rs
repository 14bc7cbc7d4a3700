//! Hooks: who is told of what, and when telling is tried again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What somebody outside can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Occasion {
    /// A comparison found records of a follower that differ from the truth.
    Divergence,
    /// A follower refused a change, or the truth an acknowledged write.
    DeadLetter,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Occasion; 2] = [Occasion::Divergence, Occasion::DeadLetter];

    /// The word for it in the configuration and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Occasion::Divergence => "divergence",
            Occasion::DeadLetter => "dead_letter",
        }
    }
}

/// A key for signatures. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Shortest and longest in bytes, as Standard Webhooks has it.
    pub const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

    /// From its bytes; `None` if there are too few or too many of them.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        Self::BYTES.contains(&bytes.len()).then(|| Secret(bytes.into()))
    }

    /// From how it is written: `whsec_` and its bytes in Base64.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
        Secret::new(&bytes)
    }

    /// The bytes.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A URL that is told of occasions.
#[derive(Clone, PartialEq, Eq)]
pub struct HookDeclaration {
    /// Where messages are posted. Parts of it may be secret.
    pub url: Arc<str>,
    /// What they are signed with.
    pub secret: Secret,
    /// What they are about.
    pub on: Vec<Occasion>,
    /// Names of entities, or beginnings of names followed by `*`.
    pub entities: Vec<Arc<str>>,
    /// How long the receiver may take to answer.
    pub timeout: Duration,
    /// For how long a message is sent again that was not taken.
    pub retry_for: Duration,
}

impl HookDeclaration {
    /// Whether it is told of an occasion of an entity.
    pub fn wants(&self, occasion: Occasion, entity: &str) -> bool {
        let covers = |pattern: &Arc<str>| match pattern.strip_suffix('*') {
            Some(beginning) => entity.starts_with(beginning),
            None => **pattern == *entity,
        };
        self.on.contains(&occasion) && self.entities.iter().any(covers)
    }
}

impl fmt::Debug for HookDeclaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookDeclaration")
            .field("on", &self.on)
            .field("entities", &self.entities)
            .field("timeout", &self.timeout)
            .field("retry_for", &self.retry_for)
            .finish_non_exhaustive()
    }
}

/// Whether nobody on the way can read what is sent to a URL: it is encrypted, or stays on this machine.
pub fn is_private(url: &str) -> bool {
    let host = url.strip_prefix("http://").unwrap_or_default();
    let host = host.split(['/', ':', '?']).next().unwrap_or_default();
    let is_here = matches!(host, "localhost" | "127.0.0.1") || url.starts_with("http://[::1]");
    url.starts_with("https://") || is_here
}

/// The longest pause between two attempts.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);

/// How long to wait after `attempt` failures in a row (counted from 1): from one second on doubled, up to five minutes,
/// of which `jitter` (0 to 1, uniform) takes at most half.
pub fn pause(attempt: u32, jitter: f64) -> Duration {
    let ceiling = Duration::from_secs(1 << attempt.saturating_sub(1).min(16)).min(PAUSE_MAX);
    ceiling.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook() -> HookDeclaration {
        HookDeclaration {
            url: "https://example.org/token-in-the-path".into(),
            secret: Secret::new(&[7; 32]).unwrap(),
            on: vec![Occasion::DeadLetter],
            entities: vec!["order".into(), "shop_*".into()],
            timeout: Duration::from_secs(1),
            retry_for: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_hook_is_told_of_what_it_asks_for() {
        let wants = |occasion, entity| hook().wants(occasion, entity);
        assert!(wants(Occasion::DeadLetter, "order") && wants(Occasion::DeadLetter, "shop_item"));
        assert!(!wants(Occasion::DeadLetter, "orders") && !wants(Occasion::Divergence, "order"));
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let seconds: Vec<_> = [1, 2, 3, 9, 60].map(|n| pause(n, 0.0).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 256, 300]);
        assert_eq!(pause(2, 1.0), Duration::from_secs(1), "jitter takes half at most");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?}", hook());
        assert!(!shown.contains("token-in-the-path") && !shown.contains('7'), "{shown}");
    }
}
