//! What is to happen to rows, as few statements that can go as few packets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use unisono_core::Key;

use crate::capture;
use crate::table::Table;

/// About how many bytes of rows go in one statement.
const STATEMENT_BYTES: usize = 512 << 10;

/// What is to happen to one row.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    /// Its table.
    pub(crate) table: Arc<Table>,
    /// Its key.
    pub(crate) key: Key,
    /// Whether it is there before.
    pub(crate) existed: bool,
    /// What it is afterwards, as literals; `None` if it is gone.
    pub(crate) row: Option<Vec<String>>,
}

/// Statements that do all of it.
///
/// Where the key alone is unique, what happens to one row several times is folded, and order does not matter. Where
/// other values are unique too, each mutation was possible after the one before it and perhaps only then, so that the
/// order is kept; and a row is updated by its key, as an insert that replaces could replace another row that shares a
/// value.
pub(crate) fn statements(mutations: Vec<Mutation>) -> Vec<String> {
    let mut tables: Vec<(Arc<Table>, Vec<Mutation>)> = Vec::new();
    for mutation in mutations {
        match tables.iter_mut().find(|(table, _)| Arc::ptr_eq(table, &mutation.table)) {
            Some((_, all)) => all.push(mutation),
            None => tables.push((Arc::clone(&mutation.table), vec![mutation])),
        }
    }
    let mut out = Vec::new();
    for (table, all) in tables {
        let begun = out.len();
        match table.sole_unique {
            true => by_key(&table, all, &mut out),
            false => in_order(&table, &all, &mut out),
        }
        if table.capture.is_some() && out.len() > begun {
            out.insert(begun, capture::own(table.entity.name()));
            out.push(capture::NOT_OWN.to_owned());
        }
    }
    out
}

/// Statements joined to packets of at most about this many bytes.
pub(crate) fn packets(
    statements: impl IntoIterator<Item = String>,
    bytes_max: usize,
) -> Vec<String> {
    let mut packets: Vec<String> = Vec::new();
    for statement in statements {
        match packets.last_mut() {
            Some(packet) if packet.len() + statement.len() + 2 <= bytes_max => {
                packet.push_str("; ");
                packet.push_str(&statement);
            }
            _ => packets.push(statement),
        }
    }
    packets
}

/// Multi-row inserts of rows that are lists of literals.
pub(crate) fn inserts(
    into: &str,
    rows: impl IntoIterator<Item = String>,
    behind: &str,
    out: &mut Vec<String>,
) {
    let mut statement = String::new();
    for row in rows {
        if !statement.is_empty() && statement.len() + row.len() > STATEMENT_BYTES {
            out.push(std::mem::take(&mut statement) + behind);
        }
        if statement.is_empty() {
            statement = format!("INSERT INTO {into} VALUES ({row})");
        } else {
            statement.push_str(", (");
            statement.push_str(&row);
            statement.push(')');
        }
    }
    if !statement.is_empty() {
        out.push(statement + behind);
    }
}

fn by_key(table: &Table, mutations: Vec<Mutation>, out: &mut Vec<String>) {
    let mut order: Vec<Mutation> = Vec::with_capacity(mutations.len());
    let mut at: HashMap<Key, usize> = HashMap::with_capacity(mutations.len());
    for mutation in mutations {
        match at.entry(mutation.key.clone()) {
            // The index is that of an element that was pushed, and none is removed.
            Entry::Occupied(known) => order[*known.get()].row = mutation.row,
            Entry::Vacant(slot) => {
                slot.insert(order.len());
                order.push(mutation);
            }
        }
    }
    let into = format!("{} ({})", table.name, table.written);
    let rows = |existed: bool| {
        order
            .iter()
            .filter(move |m| m.existed == existed)
            .filter_map(|m| Some(m.row.as_ref()?.join(", ")))
    };
    inserts(&into, rows(false), "", out);
    inserts(&into, rows(true), &table.replace, out);
    delete(table, order.iter().filter(|m| m.existed && m.row.is_none()).map(|m| &m.key), out);
}

fn in_order(table: &Table, mutations: &[Mutation], out: &mut Vec<String>) {
    let into = format!("{} ({})", table.name, table.written);
    for run in mutations.chunk_by(|a, b| kind(a) == kind(b)) {
        match run.first().map(kind) {
            Some(Kind::Insert) => {
                let rows = run.iter().filter_map(|m| Some(m.row.as_ref()?.join(", ")));
                inserts(&into, rows, "", out);
            }
            Some(Kind::Update) => {
                out.extend(run.iter().filter_map(|m| Some(table.update(&m.key, m.row.as_ref()?))));
            }
            Some(Kind::Delete) => delete(table, run.iter().map(|m| &m.key), out),
            Some(Kind::Nothing) | None => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Insert,
    Update,
    Delete,
    Nothing,
}

fn kind(mutation: &Mutation) -> Kind {
    match (mutation.existed, &mutation.row) {
        (false, Some(_)) => Kind::Insert,
        (true, Some(_)) => Kind::Update,
        (true, None) => Kind::Delete,
        (false, None) => Kind::Nothing,
    }
}

fn delete<'k>(table: &Table, keys: impl Iterator<Item = &'k Key>, out: &mut Vec<String>) {
    let (name, column) = (&table.name, table.key_column());
    if table.capture.is_some() {
        // For a list the server would scan a small table, and wait for locks of others on rows that stay.
        let one = |key| format!("DELETE FROM {name} WHERE {column} = {}", table.literal(key));
        out.extend(keys.map(one));
        return;
    }
    let keys = table.keys(keys);
    if !keys.is_empty() {
        out.push(format!("DELETE FROM {name} WHERE {column} IN ({keys})"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Form;
    use crate::table::Layout;
    use unisono_core::kind::Options;
    use unisono_core::source::Binding;
    use unisono_core::{Entity, Field, FieldType, Role};

    fn table(sole_unique: bool) -> Arc<Table> {
        let fields =
            vec![Field::new("id", FieldType::Integer), Field::new("a", FieldType::Integer)];
        let entity = Arc::new(Entity::new("t", "id", fields).unwrap());
        let binding =
            Binding { entity, role: Role::Truth, place: "t".into(), options: Options::default() };
        let columns = vec![(Form::Integer, false); 2];
        Arc::new(Table::new(&binding, &Layout { columns, sole_unique, ..Layout::default() }))
    }

    fn mutations(table: &Arc<Table>, all: &[(i64, bool, Option<i64>)]) -> Vec<Mutation> {
        let row = |id: i64, a: i64| vec![id.to_string(), a.to_string(), "9".into()];
        all.iter()
            .map(|&(id, existed, a)| Mutation {
                table: Arc::clone(table),
                key: Key::Integer(id),
                existed,
                row: a.map(|a| row(id, a)),
            })
            .collect()
    }

    #[test]
    fn where_only_the_key_is_unique_each_row_is_written_once() {
        let all = [
            (1, false, Some(1)),
            (2, true, Some(2)),
            (1, true, Some(3)),
            (3, true, None),
            (4, false, Some(4)),
            (4, true, None),
            (5, true, None),
            (5, false, Some(5)),
        ];
        assert_eq!(
            statements(mutations(&table(true), &all)),
            [
                "INSERT INTO `t` (`id`, `a`, unisono_version) VALUES (1, 3, 9)",
                "INSERT INTO `t` (`id`, `a`, unisono_version) VALUES (2, 2, 9), (5, 5, 9) ON DUPLICATE KEY UPDATE \
                 `a` = VALUES(`a`), unisono_version = VALUES(unisono_version)",
                "DELETE FROM `t` WHERE `id` IN (3)",
            ]
        );
    }

    #[test]
    fn where_other_values_are_unique_order_is_kept_and_nothing_is_replaced() {
        let all = [
            (1, true, None),
            (6, false, Some(1)),
            (7, false, Some(2)),
            (2, true, Some(5)),
            (8, false, Some(3)),
        ];
        assert_eq!(
            statements(mutations(&table(false), &all)),
            [
                "DELETE FROM `t` WHERE `id` IN (1)",
                "INSERT INTO `t` (`id`, `a`, unisono_version) VALUES (6, 1, 9), (7, 2, 9)",
                "UPDATE `t` SET `a` = 5, unisono_version = 9 WHERE `id` = 2",
                "INSERT INTO `t` (`id`, `a`, unisono_version) VALUES (8, 3, 9)",
            ]
        );
    }

    #[test]
    fn packets_keep_within_their_bound() {
        let texts = ["aaaa", "bb", "cccccccccccc", "d"].map(str::to_owned);
        assert_eq!(packets(texts, 8), ["aaaa; bb", "cccccccccccc", "d"]);
    }
}
