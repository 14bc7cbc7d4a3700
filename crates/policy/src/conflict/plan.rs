//! [`Plan`]: how the records of one entity are brought together.

use std::sync::Arc;

use unisono_core::{Entity, Error, ErrorKind, FieldType, Record, Result, Value};

use super::SyncDeclaration;
use super::entry::{Entry, Pair, Stamp, Standing, newer, standing};
use super::merge::{self, How, Merge};
use super::state::{LocalWrite, State, is_there};
use crate::rule::Rule;

/// How the records of one entity are brought together.
#[derive(Debug)]
pub struct Plan {
    pub(super) entity: Arc<Entity>,
    pub(super) units: Vec<Unit>,
    older_wins: Option<Arc<Rule>>,
    delete_wins: bool,
}

/// Fields that are resolved together.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) fields: Vec<usize>,
    pub(super) merge: &'static Merge,
}

/// What a record is.
#[derive(Debug)]
pub struct Resolution {
    /// Its data; `None` if it is deleted.
    pub record: Option<Record>,
    /// Where the write of one truth was given up for that of the other, or for something made of both.
    pub lost: Vec<Lost>,
}

/// One write that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The fields; none if it is about whether the record is there.
    pub fields: Vec<Arc<str>>,
    /// The way that decided.
    pub way: &'static str,
    /// Which of the two counts.
    pub winner: usize,
    /// The positions of both writes.
    pub dots: [u64; 2],
}

impl Plan {
    /// That of a declaration.
    ///
    /// Fails with `invalid_config`, naming the field, if a way does not fit its type.
    pub fn new(entity: &Arc<Entity>, declared: &SyncDeclaration) -> Result<Plan> {
        let mut apart = vec![false; entity.fields().len()];
        let mut units = Vec::new();
        let mut take = |name: &str| {
            let index = entity.index_of(name).ok_or_else(|| refused("is not declared", name))?;
            match index == entity.key_index() {
                true => Err(refused("is the key, which both sides share", name)),
                false if std::mem::replace(&mut apart[index], true) => {
                    Err(refused("is named twice", name))
                }
                false => Ok(index),
            }
        };
        for (name, merge) in &declared.fields {
            let index = take(name)?;
            check(&entity.fields()[index], merge)?;
            units.push(Unit { fields: vec![index], merge });
        }
        for group in &declared.groups {
            let fields = group.iter().map(|name| take(name)).collect::<Result<Vec<_>>>()?;
            units.push(Unit { fields, merge: merge::DEFAULT });
        }
        let rest = (0..apart.len()).filter(|n| !apart[*n]).collect();
        units.insert(0, Unit { fields: rest, merge: merge::DEFAULT });
        let (older_wins, delete_wins) = (declared.older_wins.clone(), declared.delete_wins);
        Ok(Plan { entity: Arc::clone(entity), units, older_wins, delete_wins })
    }

    /// The entity.
    pub fn entity(&self) -> &Arc<Entity> {
        &self.entity
    }

    /// The same text on both sides if they decide alike. `preferred` is the number of the truth that wins.
    pub fn describe(&self, preferred: Option<usize>) -> String {
        let fields = self.entity.fields();
        let unit = |unit: &Unit| {
            let names =
                unit.fields.iter().map(|n| format!("{} {}", fields[*n].name, fields[*n].ty));
            format!("{}({})", unit.merge.name, names.collect::<Vec<_>>().join(","))
        };
        let units = self.units.iter().map(unit).collect::<Vec<_>>().join(" ");
        let rule = self.older_wins.as_ref().map_or("", |rule| rule.text());
        format!("{units} delete={} prefer={preferred:?} older={rule}", self.delete_wins)
    }

    /// The ways of its units.
    pub fn ways(&self) -> impl Iterator<Item = &'static Merge> {
        self.units.iter().map(|unit| unit.merge)
    }

    /// Whether records are resolved as a whole, so that the values of a write that counts are those of the record.
    pub fn is_whole(&self) -> bool {
        self.units.len() == 1
    }

    /// The state after a write of a truth by itself, on top of what it remembers. `preferred` as for [`Plan::resolve`].
    pub fn written(
        &self,
        before: &State,
        side: usize,
        write: &LocalWrite,
        preferred: Option<usize>,
    ) -> Result<State> {
        let mut state = before.clone();
        let entry = |values: Vec<Value>| Entry {
            dot: write.dot,
            seen: write.floor.max(before.dot(1 - side)),
            stamp: Stamp::after(write.time, before.stamp()),
            old: write.old,
            reset: 0,
            values: Some(values),
        };
        state.exist[side] = Some(entry(vec![Value::Boolean(write.record.is_some())]));
        let Some(record) = &write.record else { return Ok(state) };
        state.units.resize(self.units.len(), [None, None]);
        // What the record was, if it is known and was there: only what differs was written.
        let was = match self.is_whole() || before.is_empty() {
            true => None,
            false => self.resolve(before, preferred)?.record,
        };
        let reset = was.is_none().then(|| write.floor.max(before.dot(1 - side)));
        for (unit, pair) in self.units.iter().zip(&mut state.units) {
            let values = unit.of(record);
            // A rule looks at the whole record: whoever writes after it has decided confirms what it has decided.
            let is_open = self.older_wins.is_some()
                && matches!(unit.merge.how, How::Of(_))
                && standing(pair) == Standing::Concurrent;
            if !is_open && was.as_ref().is_some_and(|was| unit.of(was) == values) {
                continue;
            }
            pair[side] = Some(match unit.merge.how {
                How::Of(_) => entry(values),
                How::Sum => {
                    let before = pair[side].as_ref().map_or(0, |entry| entry.reset);
                    let reset = reset.unwrap_or(before);
                    let other = part(&pair[1 - side], reset);
                    Entry { reset, ..entry(vec![merge::part(&values[0], other)?]) }
                }
            });
        }
        Ok(state)
    }

    /// What both sides know, brought together.
    pub fn merged(&self, mine: &State, theirs: &State) -> State {
        let mut state = mine.join(theirs);
        for (unit, pair) in self.units.iter().zip(&mut state.units) {
            if let (How::Sum, [Some(a), Some(b)]) = (unit.merge.how, &mut *pair)
                && a.old
                && b.old
            {
                // Both had the record before they met: it is one record, and nothing has been counted yet.
                (a.old, b.old) = (false, false);
                let loser = 1 - newer(pair);
                if let Some(entry) = &mut pair[loser] {
                    entry.values = Some(vec![Value::Decimal(Default::default())]);
                }
            }
        }
        state
    }

    /// What a record is, by what is known of it. `preferred` is the number of the truth that wins over the other's
    /// concurrent writes.
    pub fn resolve(&self, state: &State, preferred: Option<usize>) -> Result<Resolution> {
        let mut lost = Vec::new();
        let there = match standing(&state.exist) {
            Standing::Nothing => false,
            Standing::Of(n) => state.exist[n].as_ref().is_some_and(is_there),
            Standing::Concurrent => {
                let there = state.exist.each_ref().map(|e| e.as_ref().is_some_and(is_there));
                if there[0] != there[1] {
                    let winner = usize::from(there[1] != self.delete_wins);
                    let dots = [state.dot(0), state.dot(1)];
                    lost.push(Lost { fields: Vec::new(), way: "delete", winner, dots });
                }
                if self.delete_wins { there[0] && there[1] } else { there[0] || there[1] }
            }
        };
        if !there {
            return Ok(Resolution { record: None, lost });
        }
        let winner = self.winner(state, preferred);
        let mut values = vec![Value::Null; self.entity.fields().len()];
        for (unit, pair) in self.units.iter().zip(&state.units) {
            let resolved = self.unit(unit, pair, &winner, &mut lost)?;
            for (field, value) in unit.fields.iter().zip(resolved) {
                values[*field] = value;
            }
        }
        Ok(Resolution { record: Some(Record::new(values)), lost })
    }

    fn unit(
        &self,
        unit: &Unit,
        pair: &Pair,
        winner: &dyn Fn(&Pair) -> usize,
        lost: &mut Vec<Lost>,
    ) -> Result<Vec<Value>> {
        let fields = self.entity.fields();
        if let How::Sum = unit.merge.how {
            let reset = |n: usize| pair[n].as_ref().map_or(0, |entry| entry.reset);
            let parts = [part(&pair[0], reset(1)), part(&pair[1], reset(0))];
            return Ok(vec![merge::sum(&fields[unit.fields[0]].ty, parts)?]);
        }
        let of = |n: usize| pair[n].as_ref().and_then(|entry| entry.values.as_ref());
        let unknown = || {
            Error::new(ErrorKind::Corrupt, "what is remembered of a record lacks its values")
                .of(self.entity.name())
        };
        let wins = match standing(pair) {
            Standing::Nothing => return Err(unknown()),
            Standing::Of(n) => return of(n).cloned().ok_or_else(unknown),
            Standing::Concurrent => winner(pair),
        };
        let (Some(a), Some(b)) = (of(0), of(1)) else { return Err(unknown()) };
        if a == b {
            return Ok(a.clone());
        }
        if unit.merge.loses {
            let names = unit.fields.iter().map(|n| &fields[*n]);
            let differs = names.zip(a.iter().zip(b)).filter(|(_, (a, b))| a != b);
            let fields = differs.map(|(field, _)| Arc::clone(&field.name)).collect();
            let dots = pair.each_ref().map(|e| e.as_ref().map_or(0, |e| e.dot));
            lost.push(Lost { fields, way: unit.merge.name, winner: wins, dots });
        }
        match unit.merge.how {
            How::Of(merge) => {
                Ok(a.iter().zip(b).map(|(a, b)| merge([a, b], wins)).collect::<Vec<_>>())
            }
            How::Sum => Err(unknown()),
        }
    }

    /// Which of two concurrent writes wins.
    fn winner<'a>(&'a self, state: &'a State, preferred: Option<usize>) -> impl Fn(&Pair) -> usize {
        let by_rule = self.older_wins.as_ref().map(|rule| {
            let newer = newer(&state.exist);
            let images = [1 - newer, newer].map(|side| self.image(state, side));
            let joint = images.into_iter().flatten().collect();
            if rule.holds_for(&Record::new(joint)) { 1 - newer } else { newer }
        });
        move |pair| preferred.or(by_rule).unwrap_or_else(|| newer(pair))
    }

    /// The record as one truth wrote it, as far as that is known.
    fn image(&self, state: &State, side: usize) -> Vec<Value> {
        let mut image = vec![Value::Null; self.entity.fields().len()];
        for (unit, pair) in self.units.iter().zip(&state.units) {
            let of = |n: usize| pair[n].as_ref().and_then(|entry| entry.values.as_ref());
            let Some(values) = of(side).or_else(|| of(1 - side)) else { continue };
            for (field, value) in unit.fields.iter().zip(values) {
                image[*field] = value.clone();
            }
        }
        image
    }

    /// Leaves out of a state what is in the record itself.
    pub fn slim(&self, state: &mut State) {
        if let (true, [pair]) = (self.is_whole(), state.units.as_mut_slice())
            && let Standing::Of(n) = standing(pair)
        {
            pair.iter_mut().flatten().for_each(|entry| entry.values = None);
            debug_assert!(pair[n].is_some(), "what counts is there");
        }
    }

    /// Puts the record itself, if it is as a state has it, where that was left out; without it, what was left out is
    /// not known any more.
    pub fn fill(&self, state: &mut State, record: Option<&Record>) {
        let (true, [pair]) = (self.is_whole(), state.units.as_mut_slice()) else { return };
        match (record, standing(pair)) {
            (Some(record), Standing::Of(n)) => {
                if let Some(entry) = &mut pair[n] {
                    entry.values.get_or_insert_with(|| self.units[0].of(record));
                }
            }
            (Some(_), _) => {}
            (None, _) => pair.iter_mut().for_each(|entry| {
                entry.take_if(|entry| entry.values.is_none());
            }),
        }
    }
}

impl Unit {
    fn of(&self, record: &Record) -> Vec<Value> {
        self.fields.iter().map(|n| record.values()[*n].clone()).collect()
    }

    /// The types of what an entry of it holds; `None` for what has been counted.
    pub(super) fn ty<'a>(&self, entity: &'a Entity, n: usize) -> Option<&'a FieldType> {
        match self.merge.how {
            How::Of(_) => self.fields.get(n).map(|field| &entity.fields()[*field].ty),
            How::Sum => None,
        }
    }
}

/// What a truth has counted since a position.
fn part(entry: &Option<Entry>, after: u64) -> Option<&Value> {
    entry.as_ref().filter(|entry| entry.dot > after)?.values.as_ref()?.first()
}

fn check(field: &unisono_core::Field, merge: &Merge) -> Result<()> {
    if !(merge.fits)(&field.ty) {
        let message = format!("cannot be a {}, which is for {}", merge.name, merge.takes);
        return Err(refused(message, &field.name));
    }
    if matches!(merge.how, How::Sum) && !field.required {
        return Err(refused("is a counter and must be `required`", &field.name));
    }
    Ok(())
}

fn refused(message: impl Into<std::borrow::Cow<'static, str>>, field: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with("field", field)
}
