//! [`Watch`]: the rows of a projection as of one position, in memory while somebody follows them, and what changed last.
//!
//! Rows have no log of their own. What a delivery of this process writes it tells ([`News`](super::News)); where others wrote,
//! where a copy was made or another version answers, all rows are read again and compared with those in memory. Either
//! way followers get whole steps from one position to the next: who has one of the positions that are remembered is given
//! what changed since, everybody else all rows at once. So nothing is left out, and no row goes back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use unisono_core::{Change, Key, Position, Record, Stored, Version};

/// The most rows of a projection that can be followed: they are held in memory.
pub(crate) const ROWS_MAX: usize = 200_000;
/// Rows that changed last and are remembered, for those who come back.
const REMEMBERED_MAX: usize = 20_000;
/// Steps that may wait for a slow follower; one that lags further behind is given what it lacks.
const STEPS_MAX: usize = 256;

/// One step of the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct RowsChanged {
    /// The position as of which the rows are after it.
    pub position: Position,
    /// Whether these are all rows that there are; otherwise they are those that changed.
    pub anew: bool,
    /// What they are now; `None` for one that is gone.
    pub rows: Vec<(Key, Option<Arc<Record>>)>,
}

/// The rows of a store in their versions.
pub(crate) type Rows = BTreeMap<Key, (Version, Arc<Record>)>;

/// The rows of a projection, for those who follow them.
pub(crate) struct Watch {
    state: Mutex<State>,
    sender: broadcast::Sender<Arc<RowsChanged>>,
}

#[derive(Default)]
struct State {
    rows: Rows,
    /// As of where they are; `None` before they were read.
    position: Option<Position>,
    /// The last steps, and from where the first of them began.
    steps: VecDeque<Arc<RowsChanged>>,
    begin: Position,
    remembered: usize,
    too_many: bool,
}

/// What a follower begins with, and what comes after it.
pub(crate) type Attached = (Vec<Arc<RowsChanged>>, broadcast::Receiver<Arc<RowsChanged>>);

impl Default for Watch {
    fn default() -> Self {
        Watch { state: Mutex::default(), sender: broadcast::Sender::new(STEPS_MAX) }
    }
}

impl Watch {
    /// As of where the rows are; `None` before they were read.
    pub(crate) fn position(&self) -> Option<Position> {
        self.held().position
    }

    /// There are so many rows.
    pub(crate) fn tell_whether_too_many(&self, rows: usize) {
        self.held().too_many = rows > ROWS_MAX;
    }

    /// Whether there are more rows than can be followed.
    pub(crate) fn has_too_many(&self) -> bool {
        self.held().too_many
    }

    /// Whether somebody follows them.
    pub(crate) fn is_followed(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// What to begin with for who has the rows as of a position, or none; `None` before they were read and while they have
    /// not come as far as that.
    pub(crate) fn attach(&self, after: Option<Position>) -> Option<Attached> {
        let state = self.held();
        let position = state.position.filter(|position| after.is_none_or(|a| *position >= a))?;
        let receiver = self.sender.subscribe();
        let begins = match after.filter(|after| *after >= state.begin) {
            Some(after) => {
                state.steps.iter().filter(|step| step.position > after).cloned().collect()
            }
            None => {
                let all = state.rows.iter();
                let rows = all.map(|(key, (_, row))| (key.clone(), Some(Arc::clone(row))));
                vec![Arc::new(RowsChanged { position, anew: true, rows: rows.collect() })]
            }
        };
        Some((begins, receiver))
    }

    /// The rows went on.
    pub(crate) fn went_on(&self, to: Position, changes: &[Arc<Change>]) {
        let mut state = self.held();
        let mut changed = BTreeMap::new();
        for change in changes {
            let row = change.image.clone();
            if takes_in(&mut state.rows, change).is_some_and(|before| before != row) {
                changed.insert(change.key.clone(), row);
            }
        }
        self.step(&mut state, to, changed);
    }

    /// The rows were read again.
    pub(crate) fn found(&self, position: Position, rows: Rows) {
        let mut state = self.held();
        let mut changed = BTreeMap::new();
        for (key, (_, row)) in &rows {
            if state.rows.get(key).is_none_or(|(_, before)| before != row) {
                changed.insert(key.clone(), Some(Arc::clone(row)));
            }
        }
        for key in state.rows.keys().filter(|key| !rows.contains_key(*key)) {
            changed.insert(key.clone(), None);
        }
        state.rows = rows;
        if state.position.is_none() {
            state.position = Some(position);
            state.begin = position;
            return;
        }
        self.step(&mut state, position, changed);
    }

    fn step(&self, state: &mut State, to: Position, changed: BTreeMap<Key, Option<Arc<Record>>>) {
        state.position = state.position.max(Some(to));
        if changed.is_empty() {
            return;
        }
        state.remembered += changed.len();
        let step = RowsChanged { position: to, anew: false, rows: changed.into_iter().collect() };
        let step = Arc::new(step);
        state.steps.push_back(Arc::clone(&step));
        while state.remembered > REMEMBERED_MAX
            && let Some(forgotten) = state.steps.pop_front()
        {
            state.remembered -= forgotten.rows.len();
            state.begin = forgotten.position;
        }
        // Nobody may be listening at the moment.
        let _ = self.sender.send(step);
    }

    fn held(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes in what became of a row, unless it is known in that version or a newer one; answers what it was before.
pub(crate) fn takes_in(rows: &mut Rows, change: &Change) -> Option<Option<Arc<Record>>> {
    let known = rows.get(&change.key);
    if known.is_some_and(|(version, _)| *version >= change.position) {
        return None;
    }
    let before = match &change.image {
        Some(row) => rows.insert(change.key.clone(), (change.position, Arc::clone(row))),
        None => rows.remove(&change.key),
    };
    Some(before.map(|(_, row)| row))
}

/// Takes in a row that was read.
pub(crate) fn read(rows: &mut Rows, stored: Stored) {
    rows.insert(stored.key, (stored.version, stored.record));
}

#[cfg(test)]
mod tests {
    use unisono_core::{Operation, Timestamp, Value};

    use super::*;

    fn at(n: u64) -> Position {
        Position::new(n).unwrap()
    }

    fn row(key: &str, version: u64, sold: Option<i64>) -> Arc<Change> {
        let record = |n| Arc::new(Record::new(vec![Value::Integer(n)]));
        Arc::new(Change {
            position: at(version),
            entity: "sales".into(),
            key: Key::from_text(key).unwrap(),
            operation: if sold.is_some() { Operation::Put } else { Operation::Delete },
            replaced: None,
            image: sold.map(record),
            time: Timestamp::EPOCH,
            actor: None,
            trace: None,
        })
    }

    fn rows(of: &[(&str, u64, i64)]) -> Rows {
        let mut rows = Rows::new();
        for (key, version, sold) in of {
            takes_in(&mut rows, &row(key, *version, Some(*sold)));
        }
        rows
    }

    fn texts(step: &RowsChanged) -> Vec<String> {
        let text = |(key, row): &(Key, Option<Arc<Record>>)| match row.as_ref().map(|r| r.values())
        {
            Some([Value::Integer(n)]) => format!("{key}={n}"),
            _ => format!("-{key}"),
        };
        step.rows.iter().map(text).collect()
    }

    fn begins(watch: &Watch, after: Option<u64>) -> Option<Vec<(bool, u64, Vec<String>)>> {
        let (steps, _) = watch.attach(after.map(at))?;
        Some(steps.iter().map(|s| (s.anew, s.position.as_u64(), texts(s))).collect())
    }

    #[test]
    fn who_comes_back_is_given_what_it_lacks_and_everybody_else_all_rows() {
        let watch = Watch::default();
        assert!(watch.attach(None).is_none(), "nothing was read yet");
        watch.found(at(5), rows(&[("a", 3, 1), ("b", 5, 2)]));
        watch.went_on(at(7), &[row("a", 6, Some(4)), row("c", 7, Some(1))]);
        watch.went_on(at(8), &[]);
        watch.went_on(at(9), &[row("b", 9, None)]);
        let all = vec![(true, 9, vec!["a=4".to_owned(), "c=1".to_owned()])];
        assert_eq!(begins(&watch, None), Some(all.clone()));
        assert_eq!(begins(&watch, Some(4)), Some(all), "what was before is not remembered");
        let since = begins(&watch, Some(5)).unwrap();
        assert_eq!(since[0], (false, 7, vec!["a=4".to_owned(), "c=1".to_owned()]));
        assert_eq!(since[1..], [(false, 9, vec!["-b".to_owned()])]);
        assert_eq!(begins(&watch, Some(8)).unwrap(), since[1..]);
        assert_eq!(begins(&watch, Some(9)), Some(Vec::new()));
        assert_eq!(begins(&watch, Some(10)), None, "it is not that far");
    }

    #[test]
    fn an_older_or_equal_state_of_a_row_is_no_step() {
        let watch = Watch::default();
        watch.found(at(5), rows(&[("a", 5, 1)]));
        let (_, mut receiver) = watch.attach(None).unwrap();
        watch.went_on(at(6), &[row("a", 4, Some(9)), row("a", 5, Some(9)), row("x", 6, None)]);
        assert!(receiver.try_recv().is_err());
        watch.went_on(at(7), &[row("a", 7, Some(2))]);
        assert_eq!(texts(&receiver.try_recv().unwrap()), ["a=2"]);
    }

    #[test]
    fn rows_that_were_read_again_are_compared_by_what_they_are() {
        let watch = Watch::default();
        watch.found(at(9), rows(&[("a", 9, 1), ("b", 8, 2), ("c", 7, 3)]));
        let (_, mut receiver) = watch.attach(None).unwrap();
        // Another version of the projection has versions of its own.
        watch.found(at(12), rows(&[("a", 2, 1), ("b", 2, 5), ("d", 2, 4)]));
        let step = receiver.try_recv().unwrap();
        assert_eq!((step.anew, step.position), (false, at(12)));
        assert_eq!(texts(&step), ["b=5", "-c", "d=4"]);
        watch.found(at(13), rows(&[("a", 2, 1), ("b", 2, 5), ("d", 2, 4)]));
        assert!(receiver.try_recv().is_err(), "nothing changed");
        assert_eq!(watch.position(), Some(at(13)));
    }

    #[test]
    fn only_so_much_is_remembered() {
        let watch = Watch::default();
        watch.found(at(1), Rows::new());
        for n in 2..=(REMEMBERED_MAX as u64 + 2) {
            watch.went_on(at(n), &[row("a", n, Some(n as i64))]);
        }
        assert!(begins(&watch, Some(1)).unwrap()[0].0, "the first step is forgotten");
        assert!(!begins(&watch, Some(2)).unwrap()[0].0);
    }
}
