//! Random filters, orders, pages and groups on SQLite, which keeps text by its bytes: what this crate makes of a
//! dialect must answer what the reference evaluator answers.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use unisono_core::query::{Query, eval};
use unisono_core::{Entity, FieldType, Position, Record, Result, Stored, Value, json};
use unisono_testkit::Generator;

use crate::{Dialect, Each, Rows, Statement, aggregate, count, page, text};

/// A table with text and numbers as they are, and everything else as JSON, which cannot be compared.
struct Sqlite {
    entity: Arc<Entity>,
    columns: Vec<String>,
}

fn native(ty: &FieldType) -> bool {
    matches!(ty, FieldType::String | FieldType::Text | FieldType::Integer | FieldType::Boolean)
}

impl Sqlite {
    fn ty(&self, field: usize) -> &FieldType {
        &self.entity.fields()[field].ty
    }

    fn encode(&self, field: usize, value: &Value) -> Sql {
        match value {
            Value::Null => Sql::Null,
            Value::Integer(n) => Sql::Integer(*n),
            Value::Boolean(b) => Sql::Integer(i64::from(*b)),
            Value::String(s) => Sql::Text(text::escape(s).into_owned()),
            other => Sql::Blob(json::value_to_json(self.ty(field), other).to_string().into_bytes()),
        }
    }

    fn decode(&self, field: usize, cell: Sql) -> Value {
        match (self.ty(field), cell) {
            (_, Sql::Null) => Value::Null,
            (FieldType::Boolean, Sql::Integer(n)) => Value::Boolean(n == 1),
            (_, Sql::Integer(n)) => Value::Integer(n),
            (_, Sql::Text(s)) => Value::String(text::unescape(&s).unwrap().into_owned()),
            (ty, Sql::Blob(b)) => {
                json::parse_value(ty, &serde_json::from_slice(&b).unwrap()).unwrap()
            }
            (ty, other) => panic!("{ty}: {other:?}"),
        }
    }
}

impl Dialect for Sqlite {
    type Parameter = Sql;

    fn entity(&self) -> &Arc<Entity> {
        &self.entity
    }

    fn table(&self) -> &str {
        "t"
    }

    fn selected(&self, field: usize) -> &str {
        &self.columns[field]
    }

    fn version(&self) -> &str {
        "version"
    }

    fn mark(&self, _: usize, _: &Sql) -> String {
        "?".into()
    }

    fn comparable(&self, field: usize) -> Option<Cow<'_, str>> {
        native(&self.entity.fields()[field].ty).then(|| Cow::Borrowed(self.selected(field)))
    }

    fn parameter(&self, field: usize, value: &Value) -> Option<Sql> {
        (native(&self.entity.fields()[field].ty)).then(|| self.encode(field, value))
    }

    fn pattern(&self, pattern: String) -> Sql {
        Sql::Text(pattern)
    }

    fn stored_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        text::escape(text)
    }

    fn irregular(&self, column: &str) -> Option<String> {
        Some(format!("instr({column}, char(1)) > 0"))
    }

    fn order(&self, column: &str, descending: bool) -> String {
        format!("{column}{}", if descending { " DESC" } else { "" })
    }
}

/// The table's database.
struct Database<'a> {
    table: &'a Sqlite,
    connection: Connection,
}

impl<'a> Database<'a> {
    fn new(table: &'a Sqlite, records: &[Stored]) -> Self {
        let connection = Connection::open_in_memory().unwrap();
        let names = table.columns.join(", ");
        let sql = format!("PRAGMA case_sensitive_like = ON; CREATE TABLE t ({names}, version)");
        connection.execute_batch(&sql).unwrap();
        for stored in records {
            let values = stored.record.values().iter().enumerate();
            let mut row: Vec<_> = values.map(|(f, v)| table.encode(f, v)).collect();
            row.push(Sql::Integer(stored.version.as_i64()));
            let sql = format!("INSERT INTO t VALUES ({})", vec!["?"; row.len()].join(", "));
            connection.execute(&sql, params_from_iter(row)).unwrap();
        }
        Database { table, connection }
    }

    fn rows(&self, statement: &Statement<Sql>) -> Vec<Vec<Sql>> {
        let mut prepared = self.connection.prepare(&statement.sql).unwrap();
        let width = prepared.column_count();
        let rows = prepared.query_map(params_from_iter(&statement.parameters), |row| {
            (0..width).map(|n| row.get(n)).collect::<rusqlite::Result<Vec<Sql>>>()
        });
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    fn record(&self, fields: &[usize], row: Vec<Sql>) -> Record {
        let mut record = Record::new(vec![Value::Null; self.table.entity.fields().len()]);
        for (field, cell) in fields.iter().zip(row) {
            record.values_mut()[*field] = self.table.decode(*field, cell);
        }
        record
    }
}

fn number(cell: &Sql) -> u64 {
    match cell {
        Sql::Integer(n) => *n as u64,
        other => panic!("{other:?}"),
    }
}

#[async_trait::async_trait]
impl Rows<Sql> for Database<'_> {
    async fn records(&mut self, statement: Statement<Sql>) -> Result<Vec<Stored>> {
        let all: Vec<_> = (0..self.table.columns.len()).collect();
        let stored = |row: Vec<Sql>| {
            let version = Position::new(number(&row[all.len()]))?;
            let record = self.record(&all, row);
            Ok(Stored::new(self.table.entity.key_of(&record)?, version, Arc::new(record)))
        };
        self.rows(&statement).into_iter().map(stored).collect()
    }

    async fn parts(
        &mut self,
        statement: Statement<Sql>,
        fields: &[usize],
        each: &mut Each<'_>,
    ) -> Result<()> {
        let rows = self.rows(&statement);
        rows.into_iter().try_for_each(|row| each(&self.record(fields, row)))
    }

    async fn number(&mut self, statement: Statement<Sql>) -> Result<u64> {
        Ok(number(&self.rows(&statement)[0][0]))
    }

    async fn numbers(&mut self, statement: Statement<Sql>, f: usize) -> Result<Vec<(Value, u64)>> {
        let pair = |row: Vec<Sql>| (self.table.decode(f, row[0].clone()), number(&row[1]));
        Ok(self.rows(&statement).into_iter().map(pair).collect())
    }
}

async fn one_seed(seed: u64) {
    let mut g = Generator::new(seed);
    let entity = g.entity("thing", &|_| true);
    let records: Vec<_> = g.records(&entity, 80).into_values().collect();
    let stored = |(n, r): (usize, &Record)| {
        let version = Position::new(n as u64 + 1).unwrap();
        Stored::new(entity.key_of(r).unwrap(), version, Arc::new(r.clone()))
    };
    let all: Vec<_> = records.iter().enumerate().map(stored).collect();
    let columns = (0..entity.fields().len()).map(|n| format!("c{n}")).collect();
    let table = Sqlite { entity: Arc::clone(&entity), columns };
    let mut database = Database::new(&table, &all);
    let known: Vec<_> = records.iter().collect();
    for question in 0..30 {
        let facets = g.facets(&entity);
        let mut query = Query { facets, ..g.query(&entity, &known) };
        let place = format!("seed {seed}, question {question}: {query:?}");
        let expected = eval::count(&entity, &query.filter, None, all.iter()).unwrap();
        assert_eq!(count(&table, &query.filter, &mut database).await.unwrap(), expected, "{place}");
        for _ in 0..5 {
            let expected = eval::page(&entity, &query, all.iter()).unwrap();
            assert_eq!(page(&table, &query, &mut database).await.unwrap(), expected, "{place}");
            if expected.next.is_none() {
                break;
            }
            query.cursor = expected.next;
        }
        let groups = g.aggregate(&entity, &known);
        let found = aggregate(&table, &groups, &mut database).await.map_err(|e| e.kind());
        let expected = eval::aggregate(&entity, &groups, all.iter()).map_err(|e| e.kind());
        assert_eq!(found, expected, "seed {seed}: {groups:?}");
    }
}

#[tokio::test]
async fn random_questions_get_the_answers_of_the_reference() {
    for seed in 0..60 {
        one_seed(seed).await;
    }
}
