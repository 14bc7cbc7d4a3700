//! The keys that are read most, kept in the truth, so that a cache which begins empty after a restart has them.
//!
//! Each entity has one list, which all processes write. Whoever does so lays its own keys between those that are there:
//! what no process reads any more goes down, and falls out in the end. Nothing depends on the list but which records are
//! read ahead.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use unisono_core::{Entity, Error, ErrorKind, Key, Result};

use crate::cache::Feed;
use crate::cache::hot::Hot;

/// How often the list is written at most.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// The list is written if more than one in so many of its keys came or went.
const KEYS_PER_CHANGE: usize = 20;
/// The longest list, as text; a key has at most [`Key::BYTES_MAX`].
const TEXT_BYTES_MAX: usize = 4 << 20;
/// The only name in the space of an entity.
const NAME: &str = "read_most";

impl Feed {
    /// The keys whose records are taken in when the cache begins empty, the hottest first.
    pub(super) async fn hot_keys(&self) -> Vec<Key> {
        let Some(hot) = self.hot.load_full() else { return Vec::new() };
        let kept = self.kept_keys().await.unwrap_or_else(|error| {
            tracing::debug!(%error, entity = %self.entity.name(), "the kept list of hot keys cannot be read");
            Vec::new()
        });
        together(&hot, kept)
    }

    /// Keeps the list up to date for as long as the engine runs.
    pub(super) async fn keep_hot_keys(self: Arc<Self>) {
        let mut noted = 0;
        while !self.has_ended() {
            self.runtime.sleep(KEEP_EVERY).await;
            let now = self.hot.load().as_ref().map_or(0, |hot| hot.noted());
            if now != noted {
                noted = now;
                self.keep_hot_keys_now().await;
            }
        }
    }

    /// Writes the list if it is much unlike the kept one. Where that fails, the next one comes soon.
    pub(crate) async fn keep_hot_keys_now(&self) {
        if let Err(error) = self.write_hot_keys().await {
            tracing::debug!(%error, entity = %self.entity.name(), "the list of hot keys cannot be kept");
        }
    }

    async fn write_hot_keys(&self) -> Result<()> {
        let Some(hot) = self.hot.load_full() else { return Ok(()) };
        let kept = self.kept_keys().await?;
        let keys = together(&hot, kept.clone());
        match is_unlike(&keys, &kept) {
            true => self.log.truth.put_state(&self.space(), NAME, Some(encode(&keys))).await,
            false => Ok(()),
        }
    }

    async fn kept_keys(&self) -> Result<Vec<Key>> {
        let lists = self.log.truth.list_state(&self.space()).await?;
        let Some((_, text)) = lists.into_iter().find(|(name, _)| name == NAME) else {
            return Ok(Vec::new());
        };
        // By another version, or from when the key was of another type: it is written anew.
        Ok(decode(&self.entity, &text).unwrap_or_else(|error| {
            tracing::debug!(%error, entity = %self.entity.name(), "the kept list of hot keys means nothing here");
            Vec::new()
        }))
    }

    /// Where the list is kept: at most 57 characters, as names of entities have at most 48.
    fn space(&self) -> String {
        format!("hot_keys/{}", self.entity.name())
    }
}

/// What this process reads most and what was kept, as many as are wanted. A place in the kept list counts half as much,
/// and its second half nothing: so a key goes down and falls out, unless a process that reads it raises it again.
fn together(hot: &Hot, kept: Vec<Key>) -> Vec<Key> {
    // A process that has not read much yet knows nothing better than the kept keys.
    let stay = if hot.knows() { kept.len() / 2 } else { kept.len() };
    let own = hot.keys().into_iter().enumerate();
    let kept = kept.into_iter().take(stay).enumerate().map(|(place, key)| (2 * place + 1, key));
    let mut all: Vec<_> = own.chain(kept).collect();
    all.sort_by_key(|(place, _)| *place);
    let mut seen = HashSet::new();
    let keys = all.into_iter().map(|(_, key)| key).filter(|key| seen.insert(key.clone()));
    keys.take(hot.wanted()).collect()
}

fn is_unlike(keys: &[Key], kept: &[Key]) -> bool {
    let before: HashSet<_> = kept.iter().collect();
    let come = keys.iter().filter(|key| !before.contains(key)).count();
    let gone = (before.len() + come).saturating_sub(keys.len());
    (come + gone) * KEYS_PER_CHANGE > kept.len()
}

/// A JSON list of the keys' texts, cut at the longest that is kept.
fn encode(keys: &[Key]) -> String {
    let mut text = "[".to_owned();
    for key in keys {
        let quoted = Json::from(key.to_string()).to_string();
        if text.len() + quoted.len() + 2 > TEXT_BYTES_MAX {
            break;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&quoted);
    }
    text.push(']');
    text
}

fn decode(entity: &Entity, text: &str) -> Result<Vec<Key>> {
    let texts: Vec<String> = serde_json::from_str(text)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "it is no list of keys").caused_by(e))?;
    texts.iter().map(|text| Key::parse(entity, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_core::{Field, FieldType};

    fn keys(numbers: impl IntoIterator<Item = i64>) -> Vec<Key> {
        numbers.into_iter().map(Key::Integer).collect()
    }

    fn hot(wanted: usize, numbers: impl IntoIterator<Item = i64>) -> Hot {
        let hot = Hot::new(wanted);
        keys(numbers).iter().for_each(|key| hot.note(key));
        hot
    }

    #[test]
    fn kept_keys_go_down_until_somebody_reads_them() {
        let few = hot(4, [1, 2]);
        assert_eq!(together(&few, keys([9, 2, 8, 7])), keys([1, 2, 9, 8]));
        let none = hot(4, []);
        assert_eq!(together(&none, keys([9, 8, 7, 6, 5])), keys([9, 8, 7, 6]));
        let busy = hot(100, [1, 2].repeat(1000));
        let mut list = keys(100..200);
        for _ in 0..10 {
            list = together(&busy, list);
        }
        assert_eq!(list, keys([1, 2]), "what nobody reads is gone in the end");
    }

    #[test]
    fn a_list_is_written_again_when_it_has_changed_much() {
        let kept = keys(0..100);
        assert!(!is_unlike(&keys((0..100).rev()), &kept));
        assert!(!is_unlike(&keys(2..102), &kept));
        assert!(is_unlike(&keys(3..103), &kept));
        assert!(is_unlike(&keys(0..90), &kept));
        assert!(is_unlike(&keys([1]), &[]));
        assert!(!is_unlike(&[], &[]));
    }

    #[test]
    fn a_list_is_read_as_it_was_kept_or_not_at_all() {
        let entity = |ty| {
            let key = Field { required: true, ..Field::new("id", ty) };
            Entity::new("thing", "id", vec![key]).unwrap()
        };
        let (numbers, texts) = (entity(FieldType::Integer), entity(FieldType::String));
        let odd: Vec<_> = ["a", "\"", "\n", "ü\\,]"].map(|t| Key::from_text(t).unwrap()).into();
        assert_eq!(decode(&texts, &encode(&odd)).unwrap(), odd);
        assert_eq!(decode(&numbers, &encode(&keys([-5, 7]))).unwrap(), keys([-5, 7]));
        assert_eq!(decode(&numbers, &encode(&[])).unwrap(), []);
        for bad in [encode(&odd).as_str(), "", "1", "[1, 2]", "{\"keys\": []}", "["] {
            assert!(decode(&numbers, bad).is_err(), "{bad}");
        }
        let long = Key::from_text(&"x".repeat(Key::BYTES_MAX)).unwrap();
        let text = encode(&vec![long; 10_000]);
        assert!(text.len() <= TEXT_BYTES_MAX);
        assert_eq!(decode(&texts, &text).unwrap().len(), 8144);
    }
}
