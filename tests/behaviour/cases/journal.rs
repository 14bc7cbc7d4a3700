//! Journals: what was acknowledged is kept in order, once, until it is let go of.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::journal::{Appended, Entry, Journal, NewEntry};
use unisono_core::write::Idempotency;
use unisono_core::{Effect, ErrorKind, Role, Timestamp};

use crate::cases::cases;
use crate::fixture::{Fixture, Opened, Stop, Verdict, check, check_eq, must_fail};

cases! {
    "journal-1" acknowledged_entries_survive "what was acknowledged is there when the process ends without a word";
    "journal-2" sequences_are_given_once "sequences rise and are never used again, also after everything was removed";
    "journal-3" repeated_entries_are_kept_once "a repeated entry is told by its key, another request under that key fails alone";
    "journal-4" failing_appends_keep_nothing "a call that fails says that nothing was kept";
    "journal" entries_are_read_in_order "entries are read in order, by page, and removed one by one";
    "journal" spaces_are_apart "each space has entries, sequences and keys of its own";
}

/// The space of most cases.
const SPACE: &str = "thing";

/// A journal in which a space has begun.
struct Kept {
    opened: Opened,
    journal: Arc<dyn Journal>,
    now: Timestamp,
}

impl Kept {
    async fn begin(fixture: &Fixture) -> Result<Self, Stop> {
        fixture.needs(Role::Journal)?;
        let opened = fixture.open_bare().await?;
        opened.source.prepare(&[]).await?;
        let journal = opened.journal()?;
        journal.begin(SPACE).await?;
        Ok(Kept { opened, journal, now: fixture.now() })
    }

    /// As after the end of the process: nothing was closed. What is not durable is left as it is.
    async fn again(self, fixture: &Fixture) -> Result<Self, Stop> {
        match fixture.capability().durable {
            true => {
                drop(self);
                Kept::begin(fixture).await
            }
            false => Ok(self),
        }
    }

    async fn append(&self, entries: &[(&str, Option<(&str, u128)>)]) -> Result<Vec<Told>, Stop> {
        let new = |(body, key): &(&str, Option<(&str, u128)>)| {
            let idempotency =
                key.map(|(key, fingerprint)| Idempotency { key: key.into(), fingerprint });
            NewEntry { body: (*body).to_owned(), idempotency, time: self.now }
        };
        let appended = self.journal.append(SPACE, entries.iter().map(new).collect()).await?;
        check_eq!(appended.len(), entries.len(), "one answer for each entry");
        Ok(appended.into_iter().map(|a| a.map_err(|e| e.kind())).collect())
    }

    /// Keeps one entry without a key; answers its sequence.
    async fn keep(&self, body: &str) -> Result<u64, Stop> {
        match self.append(&[(body, None)]).await?.as_slice() {
            [Ok(Appended { sequence, repeated: false })] => Ok(*sequence),
            other => Err(Stop::Failed(format!("an entry without a key: {other:?}"))),
        }
    }

    async fn read(&self, after: u64, entries_max: usize) -> Result<Vec<Entry>, Stop> {
        Ok(self.journal.read(SPACE, after, entries_max).await?)
    }

    /// Lets go of entries, and of keys from before now.
    async fn remove(&self, sequences: &[u64]) -> Verdict {
        Ok(self.journal.remove(SPACE, sequences, self.now).await?)
    }
}

/// What became of an entry, as far as it can be compared.
type Told = Result<Appended, ErrorKind>;

fn told(sequence: u64, repeated: bool) -> Told {
    Ok(Appended { sequence, repeated })
}

/// The sequences of entries that were kept.
fn sequences(appended: &[Told]) -> Result<Vec<u64>, Stop> {
    let sequence = |a: &Told| match a {
        Ok(Appended { sequence, repeated: false }) => Ok(*sequence),
        other => Err(Stop::Failed(format!("it must be kept: {other:?}"))),
    };
    appended.iter().map(sequence).collect()
}

fn pairs(entries: &[Entry]) -> Vec<(u64, &str)> {
    entries.iter().map(|e| (e.sequence, e.body.as_str())).collect()
}

async fn acknowledged_entries_survive(fixture: &Fixture) -> Verdict {
    let mut kept = Kept::begin(fixture).await?;
    let long = "x".repeat(300_000);
    let bodies =
        ["{\"key\":\"a\"}", "", "line\nand 'quotes' \"here\" \\ \t", "ünïcödé 🦀 \u{0001}", &long];
    let mut all = Vec::new();
    for body in bodies {
        all.push((kept.keep(body).await?, body));
        kept = kept.again(fixture).await?;
        check_eq!(pairs(&kept.read(0, 100).await?), all, "after the end of the process");
    }
    let many: Vec<_> = (0..700).map(|n| format!("{{\"n\":{n}}}")).collect();
    let entries: Vec<_> = many.iter().map(|body| (body.as_str(), None)).collect();
    let given = sequences(&kept.append(&entries).await?)?;
    all.extend(given.into_iter().zip(many.iter().map(String::as_str)));
    let kept = kept.again(fixture).await?;
    check_eq!(pairs(&kept.read(0, 1000).await?), all, "after a call with many entries");
    check_eq!(
        kept.journal.spaces().await?,
        [(SPACE.to_owned(), all.len() as u64)],
        "the spaces that hold entries"
    );
    Ok(())
}

async fn sequences_are_given_once(fixture: &Fixture) -> Verdict {
    let mut kept = Kept::begin(fixture).await?;
    let first = kept.append(&[("a", None), ("b", None), ("c", None)]).await?;
    let mut given = sequences(&first)?;
    check!(given[0] >= 1, "sequences begin at 1: {given:?}");
    for round in 0..3 {
        kept.remove(&given).await?;
        check_eq!(kept.read(0, 10).await?, [], "everything was removed");
        check_eq!(kept.journal.spaces().await?, [], "no space holds entries");
        if round > 0 {
            kept = kept.again(fixture).await?;
        }
        // An entry that is refused must not have later ones take an earlier place.
        let some = [("d", Some(("k", round))), ("e", Some(("k", 77))), ("f", None)];
        let appended = kept.append(&some).await?;
        match round {
            0 => given.extend(sequences(&[appended[0], appended[2]])?),
            _ => given.extend(sequences(&[appended[2]])?),
        }
        check!(given.is_sorted_by(|a, b| a < b), "a sequence was given twice: {given:?}");
    }
    kept.journal.begin(SPACE).await?;
    given.push(kept.keep("g").await?);
    check!(given.is_sorted_by(|a, b| a < b), "to begin again begins anew: {given:?}");
    Ok(())
}

async fn repeated_entries_are_kept_once(fixture: &Fixture) -> Verdict {
    let mut kept = Kept::begin(fixture).await?;
    let reused = Err(ErrorKind::IdempotencyKeyReused);
    let a = ("a", Some(("k", 1)));
    let other = ("z", Some(("k", 2)));
    let first =
        kept.append(&[("x", None), a, a, other, ("b", Some(("l", 2))), ("x", None)]).await?;
    let [Ok(x), Ok(kept_a), .., Ok(b), Ok(last)] = first.as_slice() else {
        return Err(Stop::Failed(format!("in one call: {first:?}")));
    };
    let (n, l) = (kept_a.sequence, b.sequence);
    let expected = [
        told(x.sequence, false),
        told(n, false),
        told(n, true),
        reused,
        told(l, false),
        told(last.sequence, false),
    ];
    check_eq!(first, expected, "in one call");
    check!(x.sequence < n && n < l && l < last.sequence, "in their order: {first:?}");
    check_eq!(kept.read(0, 10).await?.len(), 4, "what was kept");

    for when in ["in another call", "after the end of the process"] {
        let next = kept.append(&[a, other, ("b", Some(("l", 2)))]).await?;
        check_eq!(next, [told(n, true), reused, told(l, true)], "{when}");
        kept = kept.again(fixture).await?;
    }
    kept.remove(&[n]).await?;
    check_eq!(kept.append(&[a, other]).await?, [told(n, true), reused], "after it was flushed");
    let pairs_left = kept.read(0, 10).await?;
    check!(pairs_left.iter().all(|e| e.sequence != n), "it was kept again: {pairs_left:?}");

    kept.now = kept.now.plus(Duration::from_secs(1));
    kept.remove(&[n]).await?;
    let anew = kept.append(&[a]).await?;
    check!(sequences(&anew)?[0] > last.sequence, "its key was forgotten: {anew:?}");
    Ok(())
}

async fn failing_appends_keep_nothing(fixture: &Fixture) -> Verdict {
    let kept = Kept::begin(fixture).await?;
    let before = kept.keep("a").await?;
    let journal = Arc::clone(&kept.journal);
    kept.opened.source.close().await?;
    let entry = NewEntry { body: "b".into(), idempotency: None, time: kept.now };
    let error = must_fail(
        journal.append(SPACE, vec![entry.clone(), entry]).await,
        ErrorKind::Unavailable,
        "a closed journal",
    )?;
    check_eq!(error.effect_on_data(), Effect::None, "nothing can have been kept: {error:?}");
    must_fail(journal.read(SPACE, 0, 10).await, ErrorKind::Unavailable, "a closed journal")?;
    if fixture.capability().durable {
        let kept = Kept::begin(fixture).await?;
        check_eq!(pairs(&kept.read(0, 10).await?), [(before, "a")], "what was kept");
    }
    Ok(())
}

async fn entries_are_read_in_order(fixture: &Fixture) -> Verdict {
    let kept = Kept::begin(fixture).await?;
    check_eq!(kept.read(0, 10).await?, [], "an empty space");
    check_eq!(kept.append(&[]).await?, [], "nothing to keep");
    let bodies: Vec<_> = (0..250).map(|n| n.to_string()).collect();
    let mut given = Vec::new();
    for some in bodies.chunks(60) {
        let entries: Vec<_> = some.iter().map(|body| (body.as_str(), None)).collect();
        given.extend(sequences(&kept.append(&entries).await?)?);
    }
    let mut found: Vec<Entry> = Vec::new();
    loop {
        let after = found.last().map_or(0, |e| e.sequence);
        let page = kept.read(after, 7).await?;
        check!(page.len() <= 7, "a page has more entries than asked for");
        let Some(first) = page.first() else { break };
        check!(first.sequence > after, "a page begins with what the one before had");
        found.extend(page);
    }
    let all: Vec<_> = given.iter().copied().zip(bodies.iter().map(String::as_str)).collect();
    check_eq!(pairs(&found), all, "page by page");

    let (gone, left): (Vec<_>, Vec<_>) = all.iter().partition(|(sequence, _)| sequence % 3 == 0);
    let gone: Vec<u64> = gone.iter().map(|(sequence, _)| *sequence).collect();
    kept.remove(&gone).await?;
    check_eq!(pairs(&kept.read(0, 1000).await?), left, "what was not removed");
    kept.remove(&[gone[0], u64::MAX / 2]).await?;
    kept.remove(&[]).await?;
    check_eq!(pairs(&kept.read(0, 1000).await?), left, "what is gone is no failure");
    let (after, _) = left[99];
    check_eq!(pairs(&kept.read(after, 1000).await?), left[100..], "after one of them");
    check_eq!(kept.read(u64::MAX / 2, 10).await?, [], "after all of them");
    Ok(())
}

async fn spaces_are_apart(fixture: &Fixture) -> Verdict {
    let mut kept = Kept::begin(fixture).await?;
    kept.journal.begin("other").await?;
    kept.journal.begin("empty").await?;
    let entry = |body: &str| NewEntry {
        body: body.into(),
        idempotency: Some(Idempotency { key: "k".into(), fingerprint: 1 }),
        time: kept.now,
    };
    let mine = kept.journal.append(SPACE, vec![entry("a")]).await?.remove(0)?;
    let other = kept.journal.append("other", vec![entry("b")]).await?.remove(0)?;
    check_eq!((mine.repeated, other.repeated), (false, false), "keys are each space's own");
    kept.keep("c").await?;
    kept = kept.again(fixture).await?;
    let spaces = [("other".to_owned(), 1), (SPACE.to_owned(), 2)];
    check_eq!(kept.journal.spaces().await?, spaces, "the spaces that hold entries, by name");
    let of_other = kept.journal.read("other", 0, 10).await?;
    check_eq!(pairs(&of_other), [(other.sequence, "b")], "what another space holds");
    let all: Vec<_> = kept.read(0, 10).await?.iter().map(|e| e.sequence).collect();
    kept.remove(&all).await?;
    check_eq!(kept.journal.spaces().await?, spaces[..1], "only what was named is removed");
    check_eq!(kept.journal.read("other", 0, 10).await?, of_other, "what another space holds");
    Ok(())
}
