//! `union`: the elements of both lists, those of the winner first.

use unisono_core::{FieldType, Value};

use super::{How, Merge};

pub(super) const UNION: Merge = Merge {
    name: "union",
    takes: "lists of single values",
    fits: |ty| matches!(ty, FieldType::List(_)),
    loses: false,
    how: How::Of(|values, winner| {
        let (first, second) = (values[winner], values[1 - winner]);
        match (first, second) {
            (Value::List(first), Value::List(second)) => {
                let mut all = first.clone();
                for element in second {
                    if !all.iter().any(|known| known.order(element).is_eq()) {
                        all.push(element.clone());
                    }
                }
                Value::List(all)
            }
            (Value::Null, second) => second.clone(),
            (first, _) => first.clone(),
        }
    }),
};
