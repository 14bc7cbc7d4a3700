//! The one statement of a commit: head, rows, tombstones, outcomes and log.
//!
//! It takes the head row first, and only if that is still where the statement's own snapshot, or what was read before,
//! has it. So everything that was seen is still so, whichever process commits meanwhile; otherwise the statement does
//! nothing and answers no row.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio_postgres::types::Type;
use unisono_core::write::Unit;
use unisono_core::{Key, Position, json};
use unisono_sql::text;

use crate::codec::{Form, encode_key, key_text, timestamp};
use crate::parameter::Parameter;
use crate::table::Table;
use crate::truth::plan::{Decision, Item, Plan};

/// A statement and its parameters. It answers the head before it, and for each change its position and the version
/// that it replaced.
pub(super) struct Commit {
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
}

/// The statement of a plan that has something to write.
pub(super) fn commit(schema: &str, plan: &Plan, units: &[Unit], head: Option<Position>) -> Commit {
    let has_outcomes = units.iter().any(|unit| unit.idempotency.is_some());
    match plan.items.as_slice() {
        [item] if item.image.is_some() && !has_outcomes && item.table.capture.is_none() => {
            lone_put(schema, item, units, head)
        }
        _ => batch(schema, plan, units, head),
    }
}

/// What of a unit stands in the log.
fn of_unit(units: &[Unit], unit: usize) -> [Option<Vec<u8>>; 3] {
    let bytes =
        |text: &Option<Arc<str>>| text.as_ref().map(|t| text::escape(t).into_owned().into_bytes());
    let unit = units.get(unit);
    [
        unit.map(|u| timestamp(u.time)),
        unit.and_then(|u| bytes(&u.actor)),
        unit.and_then(|u| bytes(&u.trace)),
    ]
}

fn image(item: &Item) -> Option<Vec<u8>> {
    item.image.as_ref().map(|record| json::to_vec(&item.table.entity, record))
}

/// Takes the head for `$2` changes, unless it has moved, or writes of one of the entities are refused.
fn head_part(schema: &str, count: &str, returning: &str, entities: &[&str]) -> String {
    let entities = entities.join("', '");
    format!(
        "head AS (UPDATE {schema}.unisono_head SET position = position + {count} \
         WHERE position = coalesce($1, (SELECT position FROM {schema}.unisono_head)) \
         AND NOT fences ?| ARRAY['{entities}'] RETURNING {returning})"
    )
}

/// A lone put costs as much as the same statement without an order: no array, no join but with the old row.
fn lone_put(schema: &str, item: &Item, units: &[Unit], head: Option<Position>) -> Commit {
    let table = &item.table;
    let Table { name, entity, .. } = &**table;
    let entity = entity.name();
    let [time, actor, trace] = of_unit(units, item.unit);
    let mut parameters = vec![
        Parameter::optional(head.map(Position::as_i64)),
        Parameter::text(&key_text(&item.key)),
        Parameter::new(Type::JSON, image(item)),
        Parameter::new(Type::TIMESTAMPTZ, time),
        Parameter::new(Type::TEXT, actor),
        Parameter::new(Type::TEXT, trace),
    ];
    let (mut columns, mut values) = (String::new(), String::new());
    let mut key_mark = String::new();
    for (n, (column, value)) in table.columns.iter().zip(&item.row).enumerate() {
        parameters.push(Parameter::new(column.form.wire(), value.clone()));
        let mark = format!("${}", parameters.len());
        columns += &format!("{}, ", column.name);
        values += &format!("{}, ", column.stored(&mark));
        if n == table.entity.key_index() {
            key_mark = mark;
        }
    }
    let sql = format!(
        "WITH {head}, \
         put AS (INSERT INTO {name} ({columns}unisono_version) OVERRIDING SYSTEM VALUE \
          SELECT {values}head.position FROM head {on_conflict}) \
         INSERT INTO {schema}.unisono_log (position, entity, key, operation, replaced, previous, image, time, actor, trace) \
         SELECT head.position, '{entity}', $2, 'put', old.version, coalesce(old.version, \
          (SELECT version FROM {schema}.unisono_tombstones WHERE entity = '{entity}' AND key = $2)), $3, $4, $5, $6 \
         FROM head LEFT JOIN (SELECT unisono_version AS version FROM {name} WHERE {key} = {key_mark}) old ON TRUE \
         RETURNING position - 1, position, replaced",
        head = head_part(schema, "1", "position", &[entity]),
        on_conflict = table.on_conflict(),
        key = table.key(),
    );
    Commit { sql, parameters }
}

/// The parts of a statement for many changes, and its parameters so far.
struct Parts<'a> {
    schema: &'a str,
    parts: Vec<String>,
    parameters: Vec<Parameter>,
}

impl Parts<'_> {
    /// Adds an array; answers its mark.
    fn array(&mut self, ty: &Type, values: &[Option<Vec<u8>>]) -> String {
        self.parameters.push(Parameter::array(ty, values));
        format!("${}", self.parameters.len())
    }

    /// Adds an array of indexes.
    fn indexes(&mut self, values: impl Iterator<Item = Option<usize>>) -> String {
        let bytes = |n: usize| (n as i64).to_be_bytes().to_vec();
        self.array(&Type::INT8, &values.map(|n| n.map(bytes)).collect::<Vec<_>>())
    }
}

fn batch(schema: &str, plan: &Plan, units: &[Unit], head: Option<Position>) -> Commit {
    let count = Parameter::integer(plan.items.len() as i64);
    let entities: BTreeSet<&str> =
        plan.items.iter().map(|item| item.table.entity.name().as_ref()).collect();
    let entities: Vec<&str> = entities.into_iter().collect();
    let mut parts = Parts {
        schema,
        parts: vec![head_part(schema, "$2", "position - $2 AS base", &entities)],
        parameters: vec![Parameter::optional(head.map(Position::as_i64)), count],
    };
    parts.entries(&plan.items, units);
    let mut by_table: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut tables: Vec<&str> = Vec::new();
    for (n, item) in plan.items.iter().enumerate() {
        let table = item.table.name.as_str();
        let all = by_table.entry(table).or_default();
        if all.is_empty() {
            tables.push(table);
        }
        all.push(n);
    }
    // The same tables in another order are the same statement.
    tables.sort_unstable();
    let mut old = Vec::new();
    for (n, table) in tables.iter().enumerate() {
        let indexes = by_table.get(table).map(Vec::as_slice).unwrap_or_default();
        old.extend(parts.table(n, &plan.items, indexes));
    }
    parts.tombstones(&plan.items);
    parts.outcomes(plan, units);
    parts.log(&old)
}

impl Parts<'_> {
    /// One row for each change, as the log has it.
    fn entries(&mut self, items: &[Item], units: &[Unit]) {
        let text = |s: &str| Some(s.as_bytes().to_vec());
        let of_units: Vec<_> = items.iter().map(|i| of_unit(units, i.unit)).collect();
        let unit =
            |n: usize| of_units.iter().map(|u| u.get(n).cloned().flatten()).collect::<Vec<_>>();
        let entities: Vec<_> = items.iter().map(|i| text(i.table.entity.name())).collect();
        let keys: Vec<_> = items.iter().map(|i| text(&key_text(&i.key))).collect();
        let images: Vec<_> = items.iter().map(image).collect();
        let previous = |i: &Item| i.previous.map(|n| n + 1);
        // What a deletion in the same batch left behind is no version that is replaced.
        let replaced =
            |i: &Item| previous(i).filter(|n| items.get(n - 1).is_some_and(|p| p.image.is_some()));
        let marks = [
            self.array(&Type::TEXT, &entities),
            self.array(&Type::TEXT, &keys),
            self.array(&Type::JSON, &images),
            self.array(&Type::TIMESTAMPTZ, &unit(0)),
            self.array(&Type::TEXT, &unit(1)),
            self.array(&Type::TEXT, &unit(2)),
            self.indexes(items.iter().map(replaced)),
            self.indexes(items.iter().map(previous)),
        ];
        self.parts.push(format!(
            "entry AS (SELECT * FROM unnest({}) WITH ORDINALITY \
             AS e(entity, key, image, time, actor, trace, replaced, previous, at))",
            marks.join(", ")
        ));
    }

    /// Writes the last state of every record of a table; answers the versions of the rows that were there.
    fn table(&mut self, n: usize, items: &[Item], indexes: &[usize]) -> Option<String> {
        let table = &items.get(*indexes.first()?)?.table;
        let of = |n: &usize| items.get(*n);
        let superseded: std::collections::HashSet<usize> =
            indexes.iter().filter_map(|n| of(n)?.previous).collect();
        let firsts: Vec<usize> = indexes
            .iter()
            .copied()
            .filter(|n| of(n).is_some_and(|i| i.previous.is_none()))
            .collect();
        let lasts = || indexes.iter().copied().filter(|n| !superseded.contains(n));
        let is_put = |n: &usize| of(n).is_some_and(|i| i.image.is_some());
        let puts: Vec<usize> = lasts().filter(is_put).collect();
        let cuts: Vec<usize> = lasts().filter(|n| !is_put(n)).collect();
        let key_type = Form::of(table.key_type()).wire();
        let keys = |all: &[usize]| -> Vec<Option<Vec<u8>>> {
            all.iter().map(|n| of(n).map(|i: &Item| encode_key(&i.key as &Key))).collect()
        };
        if !puts.is_empty() {
            self.puts(n, table, items, &puts);
        }
        if !cuts.is_empty() {
            let mark = self.array(&key_type, &keys(&cuts));
            self.parts.push(format!(
                "cut{n} AS (DELETE FROM {} t USING head WHERE t.{} = ANY ({mark}))",
                table.name,
                table.key()
            ));
            if table.capture.is_some() {
                self.parts.push(format!(
                    "gone{n} AS (DELETE FROM {}.unisono_versions v USING head \
                     WHERE v.unisono_entity = '{}' AND v.unisono_key = ANY ({mark}::text[]))",
                    self.schema,
                    table.entity.name()
                ));
            }
        }
        let at = self.indexes(firsts.iter().map(|n| Some(n + 1)));
        let keys = self.array(&key_type, &keys(&firsts));
        if table.capture.is_some() {
            return Some(format!(
                "SELECT f.at, v.unisono_version AS version FROM unnest({at}, {keys}) AS f(at, key) \
                 JOIN {}.unisono_versions v ON v.unisono_entity = '{}' AND v.unisono_key = f.key::text COLLATE \"C\"",
                self.schema,
                table.entity.name()
            ));
        }
        Some(format!(
            "SELECT f.at, t.unisono_version AS version FROM unnest({at}, {keys}) AS f(at, key) JOIN {} t ON t.{} = f.key",
            table.name,
            table.key()
        ))
    }

    fn puts(&mut self, n: usize, table: &Table, items: &[Item], puts: &[usize]) {
        let mut marks = vec![self.indexes(puts.iter().map(|n| Some(n + 1)))];
        let (mut columns, mut names, mut values) = (String::new(), String::new(), String::new());
        for (c, column) in table.columns.iter().enumerate() {
            let value = |n: &usize| items.get(*n).and_then(|i| i.row.get(c)).cloned().flatten();
            let cells: Vec<_> = puts.iter().map(value).collect();
            marks.push(self.array(&column.form.wire(), &cells));
            columns += &format!("{}{}", if c > 0 { ", " } else { "" }, column.name);
            names += &format!(", c{c}");
            let stored = column.stored(&format!("r.c{c}"));
            values += &format!("{}{stored}", if c > 0 { ", " } else { "" });
        }
        let (version, versions) = table.version_column("head.base + r.at");
        let rows = format!("unnest({}) AS r(at{names})", marks.join(", "));
        // In the order of the changes: a unique value is taken by the first of two that want it.
        self.parts.push(format!(
            "put{n} AS (INSERT INTO {} ({columns}{version}) OVERRIDING SYSTEM VALUE \
             SELECT {values}{versions} FROM head, {rows} ORDER BY r.at {})",
            table.name,
            table.on_conflict()
        ));
        if table.capture.is_some() {
            self.parts.push(format!(
                "at{n} AS (INSERT INTO {0}.unisono_versions (unisono_entity, unisono_key, unisono_version) \
                 SELECT '{1}', r.c{2}::text, head.base + r.at FROM head, {rows} \
                 ON CONFLICT (unisono_entity, unisono_key) DO UPDATE SET unisono_version = excluded.unisono_version)",
                self.schema,
                table.entity.name(),
                table.entity.key_index()
            ));
        }
    }

    /// Deletions are remembered as the newest end of a record's history.
    fn tombstones(&mut self, items: &[Item]) {
        let superseded: std::collections::HashSet<usize> =
            items.iter().filter_map(|i| i.previous).collect();
        let cuts: Vec<(usize, &Item)> = (items.iter().enumerate())
            .filter(|(n, i)| i.image.is_none() && !superseded.contains(n))
            .collect();
        if cuts.is_empty() {
            return;
        }
        let entity = |(_, i): &(usize, &Item)| Some(i.table.entity.name().as_bytes().to_vec());
        let entities = self.array(&Type::TEXT, &cuts.iter().map(entity).collect::<Vec<_>>());
        let key = |(_, i): &(usize, &Item)| Some(key_text(&i.key).into_bytes());
        let keys = self.array(&Type::TEXT, &cuts.iter().map(key).collect::<Vec<_>>());
        let at = self.indexes(cuts.iter().map(|(n, _)| Some(n + 1)));
        self.parts.push(format!(
            "grave AS (INSERT INTO {}.unisono_tombstones (entity, key, version) \
             SELECT g.entity, g.key, head.base + g.at FROM head, unnest({entities}, {keys}, {at}) AS g(entity, key, at) \
             ON CONFLICT (entity, key) DO UPDATE SET version = excluded.version)",
            self.schema
        ));
    }

    /// Keeps where the changes of units with an idempotency key are in the log.
    fn outcomes(&mut self, plan: &Plan, units: &[Unit]) {
        let mut rows: [Vec<Option<Vec<u8>>>; 5] = Default::default();
        for (decision, unit) in plan.decisions.iter().zip(units) {
            let (Decision::Takes { first, count }, Some(idempotency)) =
                (decision, &unit.idempotency)
            else {
                continue;
            };
            let number = |n: usize| (n as i64).to_be_bytes().to_vec();
            let row = [
                text::escape(&idempotency.key).into_owned().into_bytes(),
                idempotency.fingerprint.to_be_bytes().to_vec(),
                number(first + 1),
                number(*count),
                timestamp(unit.time),
            ];
            rows.iter_mut().zip(row).for_each(|(all, cell)| all.push(Some(cell)));
        }
        if rows[0].is_empty() {
            return;
        }
        let types = [Type::TEXT, Type::BYTEA, Type::INT8, Type::INT8, Type::TIMESTAMPTZ];
        let marks: Vec<_> = types.iter().zip(&rows).map(|(ty, all)| self.array(ty, all)).collect();
        self.parts.push(format!(
            "outcome AS (INSERT INTO {}.unisono_outcomes (key, fingerprint, first, changes, time) \
             SELECT o.key, o.fingerprint, CASE WHEN o.changes > 0 THEN head.base + o.first ELSE 0 END, o.changes, o.time \
             FROM head, unnest({}) AS o(key, fingerprint, first, changes, time) ON CONFLICT (key) DO NOTHING)",
            self.schema,
            marks.join(", ")
        ));
    }

    /// Writes the log, and answers.
    fn log(mut self, old: &[String]) -> Commit {
        let schema = self.schema;
        let old = match old {
            [] => "SELECT NULL::bigint AS at, NULL::bigint AS version WHERE FALSE".to_owned(),
            all => all.join(" UNION ALL "),
        };
        self.parts.push(format!("old AS ({old})"));
        self.parts.push(format!(
            "logged AS (INSERT INTO {schema}.unisono_log \
             (position, entity, key, operation, replaced, previous, image, time, actor, trace) \
             SELECT head.base + e.at, e.entity, e.key, CASE WHEN e.image IS NULL THEN 'delete' ELSE 'put' END, \
             coalesce(head.base + e.replaced, old.version), \
             coalesce(head.base + e.previous, old.version, g.version), e.image, e.time, e.actor, e.trace \
             FROM head CROSS JOIN entry e LEFT JOIN old ON old.at = e.at \
             LEFT JOIN {schema}.unisono_tombstones g ON g.entity = e.entity AND g.key = e.key \
             ORDER BY e.at RETURNING position, replaced)"
        ));
        let sql = format!(
            "WITH {} SELECT head.base, logged.position, logged.replaced FROM head LEFT JOIN logged ON TRUE",
            self.parts.join(", ")
        );
        Commit { sql, parameters: self.parameters }
    }
}
