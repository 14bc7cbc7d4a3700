//! [`Mark`]: the checkpoint as each part keeps it, and what all of them together say.

use unisono_core::source::{Advance, Checkpoint};
use unisono_core::{Error, ErrorKind, Position, Result, Uuid};

use crate::error::corrupt;

const EMPTYING: &str = "emptying:";

/// The checkpoint of one part. It is in the same key as the versions of the part's records, so that neither can be
/// lost without the other.
///
/// A follower of one part has life and step 0. In a cluster, a life begins with the first batch after a reset, and each
/// batch that moves the checkpoint moves every part to the same next step. A part whose server lost its newest writes
/// is at an earlier step than the others; one that was emptied, or comes from a copy of another life, cannot agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) life: u64,
    pub(crate) step: u64,
    pub(crate) checkpoint: Checkpoint,
}

impl Mark {
    /// As it is stored.
    pub(crate) fn text(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_string(&self.checkpoint)
            .map_err(|e| Error::internal("the checkpoint cannot be encoded").caused_by(e))?;
        Ok(format!("{:016x}.{}.{json}", self.life, self.step).into_bytes())
    }
}

/// What a part says of its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// Nothing: it is empty, or was never filled by batches that move a checkpoint.
    Nothing,
    /// Somebody empties it, or began to.
    Emptying,
    /// It holds everything up to here.
    At(Mark),
}

impl Marked {
    /// From its stored text; empty for none.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let wrong = || corrupt("the stored checkpoint cannot be decoded");
        let text = std::str::from_utf8(text).map_err(|_| wrong())?;
        if text.is_empty() {
            return Ok(Marked::Nothing);
        }
        if text.starts_with(EMPTYING) {
            return Ok(Marked::Emptying);
        }
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or_else(wrong);
        let life = u64::from_str_radix(part()?, 16).map_err(|_| wrong())?;
        let step = part()?.parse().map_err(|_| wrong())?;
        let checkpoint = serde_json::from_str(part()?).map_err(|e| wrong().caused_by(e))?;
        Ok(Marked::At(Mark { life, step, checkpoint }))
    }

    /// Up to where the part holds everything; zero while a first copy is being made.
    pub(crate) fn position(&self) -> Position {
        match self {
            Marked::At(mark) if mark.checkpoint.backfill.is_none() => mark.checkpoint.position,
            _ => Position::ZERO,
        }
    }
}

/// The text of a part that is being emptied by one call, and by no other.
pub(crate) fn emptying() -> Vec<u8> {
    format!("{EMPTYING}{}", Uuid::now_v7()).into_bytes()
}

/// What all parts agree on: the mark of the one that is furthest behind.
pub(crate) fn agreed(marks: &[Marked]) -> Option<&Mark> {
    let mut least: Option<&Mark> = None;
    for mark in marks {
        let Marked::At(mark) = mark else { return None };
        match least {
            Some(other) if other.life != mark.life => return None,
            Some(other) => {
                let order = |m: &Mark| (m.step, m.checkpoint.position);
                least = Some(if order(mark) < order(other) { mark } else { other });
            }
            None => least = Some(mark),
        }
    }
    least
}

/// What a batch expects of each part, and what the part says afterwards.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// The mark of each part; empty for none.
    pub(crate) expected: Vec<Vec<u8>>,
    /// `None` if the checkpoint stays.
    pub(crate) next: Option<Vec<u8>>,
    /// Deletions up to here are never sent again.
    pub(crate) passed: Option<Position>,
}

impl Guard {
    /// Of a follower with one part, without asking it first.
    pub(crate) fn expecting(advance: &Advance, moves: bool) -> Result<Self> {
        let text = |checkpoint: &Checkpoint| {
            Mark { life: 0, step: 0, checkpoint: checkpoint.clone() }.text()
        };
        let expected = advance.from.as_ref().map(text).transpose()?.unwrap_or_default();
        let next = moves.then(|| text(&advance.to)).transpose()?;
        Ok(Guard { expected: vec![expected], next, passed: passed(advance) })
    }

    /// From what the parts say; `checkpoint_moved` if that is not where the batch begins.
    pub(crate) fn after(texts: Vec<Vec<u8>>, advance: &Advance, moves: bool) -> Result<Self> {
        let marks: Vec<_> = texts.iter().map(|t| Marked::parse(t)).collect::<Result<_>>()?;
        let agreed = agreed(&marks);
        if agreed.map(|m| &m.checkpoint) != advance.from.as_ref() {
            return Err(moved(agreed.map(|m| &m.checkpoint), advance));
        }
        let life = match (agreed, marks.len()) {
            (Some(mark), _) => mark.life,
            (None, 1) => 0,
            // The lower half of such an id is random.
            (None, _) => Uuid::now_v7().as_u128() as u64,
        };
        let steps = marks.iter().map(|m| if let Marked::At(m) = m { m.step } else { 0 });
        let step = if marks.len() == 1 { 0 } else { steps.max().unwrap_or(0) + 1 };
        let next = Mark { life, step, checkpoint: advance.to.clone() };
        let next = moves.then(|| next.text()).transpose()?;
        Ok(Guard { expected: texts, next, passed: passed(advance) })
    }
}

/// While the first copy is made, records that were read before a deletion may still be under way.
fn passed(advance: &Advance) -> Option<Position> {
    advance.from.as_ref().filter(|c| c.backfill.is_none()).map(|c| c.position)
}

/// The checkpoint is elsewhere.
pub(crate) fn moved(stored: Option<&Checkpoint>, advance: &Advance) -> Error {
    let show = |checkpoint: Option<&Checkpoint>| {
        checkpoint.map_or("none".to_owned(), |c| c.position.to_string())
    };
    Error::new(ErrorKind::CheckpointMoved, "the checkpoint is not where the delivery left it")
        .with("expected", show(advance.from.as_ref()))
        .with("stored", show(stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(position: u64) -> Checkpoint {
        let position = Position::new(position).unwrap();
        Checkpoint { log: Uuid::from_u128(1), position, backfill: None }
    }

    fn at(life: u64, step: u64, position: u64) -> Marked {
        Marked::At(Mark { life, step, checkpoint: checkpoint(position) })
    }

    #[test]
    fn marks_come_back() {
        let backfill = Some("a.b\"{}\u{0}".to_owned());
        let mark = Mark { life: 9, step: 3, checkpoint: Checkpoint { backfill, ..checkpoint(7) } };
        assert_eq!(Marked::parse(&mark.text().unwrap()).unwrap(), Marked::At(mark));
        assert_eq!(Marked::parse(b"").unwrap(), Marked::Nothing);
        assert_eq!(Marked::parse(&emptying()).unwrap(), Marked::Emptying);
        assert_eq!(Marked::parse(b"x").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn parts_agree_on_the_one_furthest_behind() {
        let position = |marks: &[Marked]| agreed(marks).map(|m| m.checkpoint.position.as_u64());
        assert_eq!(position(&[at(1, 5, 50), at(1, 4, 40), at(1, 5, 50)]), Some(40));
        assert_eq!(position(&[at(1, 5, 50), Marked::Nothing]), None, "a part was emptied");
        assert_eq!(position(&[at(1, 5, 50), at(2, 5, 50)]), None, "a part of another life");
        assert_eq!(position(&[at(1, 5, 50), Marked::Emptying]), None);
        // A checkpoint that was set back is still newer by its step.
        assert_eq!(position(&[at(1, 5, 500), at(1, 6, 7)]), Some(500));
    }

    #[test]
    fn a_batch_must_begin_where_the_parts_are() {
        let texts = |marks: &[Marked]| -> Vec<Vec<u8>> {
            let text = |m: &Marked| match m {
                Marked::At(mark) => mark.text().unwrap(),
                _ => Vec::new(),
            };
            marks.iter().map(text).collect()
        };
        let parts = texts(&[at(1, 7, 70), at(1, 5, 50)]);
        let from = |position| Advance { from: position, to: checkpoint(80) };
        let guard = Guard::after(parts.clone(), &from(Some(checkpoint(50))), true).unwrap();
        assert_eq!(guard.expected, parts);
        let next = Marked::parse(&guard.next.unwrap()).unwrap();
        assert_eq!(next, at(1, 8, 80), "beyond the step of every part");
        for wrong in [Some(checkpoint(70)), None] {
            let error = Guard::after(parts.clone(), &from(wrong), true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CheckpointMoved);
        }
        let first =
            Guard::after(texts(&[Marked::Nothing, at(3, 9, 1)]), &from(None), true).unwrap();
        let Marked::At(mark) = Marked::parse(&first.next.unwrap()).unwrap() else { panic!() };
        assert!(mark.life != 3 && mark.step == 10, "{mark:?}");
    }
}
