//! [`Group`]: what the contributions to one group have come to.

use serde_json::{Value as Json, json};
use unisono_core::json::{parse_value, value_to_json};
use unisono_core::{Result, Value, Version};

use super::state::{Exhausted, State};
use super::{Contribution, Shape};

/// What is kept of a group does not let a contribution be taken back: all of its records must be looked at again.
#[derive(Debug, PartialEq, Eq)]
pub struct Anew;

/// What the contributions to one group have come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    key: Vec<Value>,
    count: u64,
    states: Vec<State>,
}

impl Group {
    /// One without contributions.
    pub fn empty(shape: &Shape) -> Group {
        let states = shape.fields.iter().map(State::empty).collect();
        Group { key: Vec::new(), count: 0, states }
    }

    /// Whether nothing contributes to it: then there is no row.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The parts of its key, if something contributes to it.
    pub fn key(&self) -> &[Value] {
        &self.key
    }

    /// Adds the n-th contribution of a record of a version. What there are too many or too great values for is
    /// `limit_exceeded`.
    pub fn add(
        &mut self,
        shape: &Shape,
        c: &Contribution,
        version: Version,
        n: usize,
    ) -> Result<()> {
        if self.is_empty() {
            self.key.clone_from(&c.key);
        }
        self.count += 1;
        let each = self.states.iter_mut().zip(&shape.fields).zip(&c.values);
        for ((state, kept), value) in each {
            state.add(kept, value, (version, n))?;
        }
        Ok(())
    }

    /// Takes back the n-th contribution of a record of a version.
    pub fn remove(
        &mut self,
        shape: &Shape,
        c: &Contribution,
        version: Version,
        n: usize,
    ) -> Result<(), Anew> {
        self.count = self.count.checked_sub(1).ok_or(Anew)?;
        if self.is_empty() {
            *self = Group::empty(shape);
            return Ok(());
        }
        let each = self.states.iter_mut().zip(&shape.fields).zip(&c.values);
        for ((state, kept), value) in each {
            state.remove(kept, value, (version, n)).map_err(|Exhausted| Anew)?;
        }
        Ok(())
    }

    /// The values of the fields, in their order; `limit_exceeded` for one that does not fit its type.
    pub fn results(&self, shape: &Shape) -> Result<Vec<Value>> {
        self.states.iter().zip(&shape.fields).map(|(state, kept)| state.result(kept)).collect()
    }

    /// As it is kept.
    pub fn to_json(&self, shape: &Shape) -> Json {
        let key = shape.key.iter().zip(&self.key).map(|((_, ty), value)| value_to_json(ty, value));
        let states = self.states.iter().zip(&shape.fields).map(|(state, kept)| state.to_json(kept));
        json!([self.count, key.collect::<Vec<_>>(), states.collect::<Vec<_>>()])
    }

    /// From how it is kept; `None` if that is not how.
    pub fn parse(shape: &Shape, json: &Json) -> Option<Group> {
        let key = json[1].as_array()?;
        let key = shape.key.iter().zip(key).map(|((_, ty), json)| parse_value(ty, json).ok());
        let states = json[2].as_array().filter(|states| states.len() == shape.fields.len())?;
        let states = shape.fields.iter().zip(states).map(|(kept, json)| State::parse(kept, json));
        Some(Group {
            key: key.collect::<Option<_>>()?,
            count: json[0].as_u64()?,
            states: states.collect::<Option<_>>()?,
        })
    }
}
