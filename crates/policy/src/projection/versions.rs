//! [`Versions`]: which store of a projection answers, and what becomes of the one beside it.
//!
//! A projection has two places: the declared one, and one beside it. Versions are numbered; the odd ones are kept in the
//! declared place. Each step from one state to another is a pure function; carried out is it by one compare-and-set of
//! the text that the truth keeps (`engine/topology/versions.rs`).

use serde::{Deserialize, Serialize};
use unisono_core::{Error, ErrorKind, Result};

/// The versions of a projection that there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The one that answers.
    pub live: u64,
    /// The greatest number that was ever given.
    pub last: u64,
    /// The one in the other place, if there is one.
    pub beside: Option<Beside>,
}

/// The version in the other place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// Its number.
    pub version: u64,
    /// What becomes of it.
    pub state: BesideState,
}

/// What becomes of a version that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BesideState {
    /// It is made from the truth, and answers when it has caught up and was compared.
    Building,
    /// The same in the declared place; the version that answers meanwhile is discarded afterwards.
    Returning,
    /// It is made by another definition than the version that answers, which stands still until then.
    Replacing,
    /// It answered before, and goes on following.
    Former,
    /// It is being emptied.
    Discarded,
}

impl BesideState {
    /// Whether it is to answer.
    fn is_made(self) -> bool {
        matches!(self, BesideState::Building | BesideState::Returning | BesideState::Replacing)
    }
}

impl Default for Versions {
    /// The first, which is made where it is declared.
    fn default() -> Self {
        Versions { live: 1, last: 1, beside: None }
    }
}

/// Whether a version is kept in the place beside the declared one.
pub fn is_beside(version: u64) -> bool {
    version.is_multiple_of(2)
}

impl Versions {
    /// Those whose rows follow the truth, the one that answers first.
    pub fn following(&self) -> impl Iterator<Item = u64> {
        let beside = self.beside.filter(|beside| beside.state != BesideState::Discarded);
        std::iter::once(self.live).chain(beside.map(|beside| beside.version))
    }

    /// Whether something is, or was until now, in the place beside the declared one.
    pub fn uses_both_places(&self) -> bool {
        self.beside.is_some() || is_beside(self.live)
    }

    /// The version that is being made, if one is.
    pub fn building(&self) -> Option<u64> {
        self.beside.filter(|beside| beside.state.is_made()).map(|beside| beside.version)
    }

    /// A further version is made, in the place that does not answer. One that is being made goes on.
    pub fn rebuilt(&self) -> Result<Versions> {
        match self.beside.map(|beside| beside.state) {
            Some(state) if state.is_made() => Ok(self.clone()),
            Some(BesideState::Discarded) => Err(busy("the last version is still being emptied")),
            _ => Ok(self.with_another(BesideState::Building)),
        }
    }

    /// The version that answers was made by another definition than is declared now: one is made that takes its place.
    #[must_use]
    pub fn replaced(&self) -> Versions {
        match self.beside {
            Some(beside) if beside.state.is_made() => {
                let beside = Beside { state: BesideState::Replacing, ..beside };
                Versions { beside: Some(beside), ..self.clone() }
            }
            _ => self.with_another(BesideState::Replacing),
        }
    }

    /// What was made answers from now on.
    pub fn swapped(&self) -> Option<Versions> {
        let Beside { version, state } = self.beside?;
        let left = match state {
            BesideState::Building => BesideState::Former,
            BesideState::Returning => BesideState::Discarded,
            // Nobody goes back to what stands still: it makes room for the new one in the declared place.
            BesideState::Replacing if is_beside(version) => {
                let alone = Versions { live: version, last: self.last, beside: None };
                return Some(alone.with_another(BesideState::Returning));
            }
            BesideState::Replacing => BesideState::Discarded,
            BesideState::Former | BesideState::Discarded => return None,
        };
        let beside = Some(Beside { version: self.live, state: left });
        Some(Versions { live: version, last: self.last, beside })
    }

    /// The version that answered before answers again; going back a second time goes forward.
    pub fn back(&self) -> Result<Versions> {
        match self.beside {
            Some(Beside { version, state: BesideState::Former }) => {
                let beside = Some(Beside { version: self.live, state: BesideState::Former });
                Ok(Versions { live: version, last: self.last, beside })
            }
            _ => Err(Error::new(ErrorKind::NotFound, "there is no version to go back to")
                .hint("a rebuild keeps the version that answered before, until it is discarded")),
        }
    }

    /// The version that does not answer goes. If it is in the declared place, the one that answers is made there first.
    pub fn discarded(&self) -> Result<Versions> {
        let Some(beside) = self.beside else {
            return Err(Error::new(ErrorKind::NotFound, "there is no version to discard"));
        };
        match beside.state {
            BesideState::Discarded | BesideState::Returning | BesideState::Replacing => {
                Ok(self.clone())
            }
            _ if is_beside(self.live) => Ok(self.with_another(BesideState::Returning)),
            _ => {
                let beside = Beside { state: BesideState::Discarded, ..beside };
                Ok(Versions { beside: Some(beside), ..self.clone() })
            }
        }
    }

    /// Nothing is left of the discarded version.
    pub fn emptied(&self) -> Option<Versions> {
        let is_discarded = self.beside.is_some_and(|b| b.state == BesideState::Discarded);
        is_discarded.then(|| Versions { beside: None, ..self.clone() })
    }

    /// The same with a further version in the other place: a number that was never given, odd if that is the declared one.
    fn with_another(&self, state: BesideState) -> Versions {
        let next = self.last + 1;
        let version = if is_beside(next) == is_beside(self.live) { next + 1 } else { next };
        Versions { live: self.live, last: version, beside: Some(Beside { version, state }) }
    }
}

fn busy(message: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, message).hint("try again in a moment")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(of: &Versions) -> (u64, BesideState) {
        let Beside { version, state } = of.beside.unwrap();
        (version, state)
    }

    #[test]
    fn a_version_is_made_swapped_and_gone_back_from() {
        let first = Versions::default();
        assert!(!first.uses_both_places() && first.swapped().is_none());
        let made = first.rebuilt().unwrap();
        assert_eq!((made.live, beside(&made)), (1, (2, BesideState::Building)));
        assert_eq!(made.rebuilt().unwrap(), made, "one that is being made goes on");
        assert_eq!(made.back().unwrap_err().kind(), ErrorKind::NotFound);
        let swapped = made.swapped().unwrap();
        assert_eq!((swapped.live, beside(&swapped)), (2, (1, BesideState::Former)));
        let back = swapped.back().unwrap();
        assert_eq!((back.live, beside(&back)), (1, (2, BesideState::Former)));
        assert_eq!(back.back().unwrap(), swapped);
        assert_eq!(back.following().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn numbers_are_never_given_twice_and_the_declared_place_has_the_odd_ones() {
        let mut versions = Versions::default();
        let mut given = vec![1];
        for _ in 0..6 {
            versions = versions.rebuilt().unwrap();
            let (version, _) = beside(&versions);
            assert_ne!(is_beside(version), is_beside(versions.live));
            assert!(given.iter().all(|known| *known < version));
            given.push(version);
            versions = versions.swapped().unwrap();
            if version.is_multiple_of(4) {
                versions = versions.back().unwrap();
            }
        }
    }

    #[test]
    fn what_another_definition_makes_ends_in_the_declared_place() {
        let replaced = Versions::default().replaced();
        assert_eq!((replaced.live, beside(&replaced)), (1, (2, BesideState::Replacing)));
        assert_eq!(replaced.replaced(), replaced);
        assert_eq!(replaced.rebuilt().unwrap(), replaced);
        assert_eq!(replaced.discarded().unwrap(), replaced, "what stands still cannot be kept");
        assert_eq!(replaced.back().unwrap_err().kind(), ErrorKind::NotFound);
        let swapped = replaced.swapped().unwrap();
        assert_eq!((swapped.live, beside(&swapped)), (2, (3, BesideState::Returning)));
        let again = swapped.replaced();
        assert_eq!((again.live, beside(&again)), (2, (3, BesideState::Replacing)));
        let swapped = again.swapped().unwrap();
        assert_eq!((swapped.live, beside(&swapped)), (3, (2, BesideState::Discarded)));
        let former = Versions::default().rebuilt().unwrap().swapped().unwrap();
        assert_eq!(beside(&former.replaced()), (3, BesideState::Replacing));
    }

    #[test]
    fn what_is_discarded_is_emptied_and_what_stays_is_in_the_declared_place() {
        let swapped = Versions::default().rebuilt().unwrap().swapped().unwrap();
        let returning = swapped.discarded().unwrap();
        assert_eq!((returning.live, beside(&returning)), (2, (3, BesideState::Returning)));
        let returned = returning.swapped().unwrap();
        assert_eq!((returned.live, beside(&returned)), (3, (2, BesideState::Discarded)));
        assert_eq!(returned.following().collect::<Vec<_>>(), [3]);
        assert_eq!(returned.rebuilt().unwrap_err().kind(), ErrorKind::Unavailable);
        let emptied = returned.emptied().unwrap();
        assert_eq!((emptied.live, emptied.beside), (3, None));
        assert_eq!(emptied.discarded().unwrap_err().kind(), ErrorKind::NotFound);
        let given_up = Versions::default().rebuilt().unwrap().discarded().unwrap();
        assert_eq!((given_up.live, beside(&given_up)), (1, (2, BesideState::Discarded)));
    }
}
