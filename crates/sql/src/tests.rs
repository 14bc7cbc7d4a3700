//! Conditions and statements word by word; and random questions on SQLite under this crate's SQL, against the
//! reference.

mod differential;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;
use unisono_core::query::{Comparison, Cursor, Filter, Like, Order, Path, Query, Step};
use unisono_core::{Entity, Field, FieldType, Key, Record, Result, Stored, Value};

use crate::{Condition, Dialect, Each, Rows, Statement, compile, page, text};

/// Marks `$1`, parameters as the text of their values.
struct Words(Arc<Entity>);

impl Words {
    fn new() -> Self {
        let fields = vec![
            Field::new("id", FieldType::String),
            Field::new("name", FieldType::String),
            Field::new("stock", FieldType::Integer),
            Field::new("free", FieldType::Json),
        ];
        Words(Arc::new(Entity::new("thing", "id", fields).unwrap()))
    }
}

impl Dialect for Words {
    type Parameter = String;

    fn entity(&self) -> &Arc<Entity> {
        &self.0
    }

    fn table(&self) -> &str {
        "thing"
    }

    fn selected(&self, field: usize) -> &str {
        &self.0.fields()[field].name
    }

    fn version(&self) -> &str {
        "version"
    }

    fn mark(&self, number: usize, _: &String) -> String {
        format!("${number}")
    }

    fn comparable(&self, field: usize) -> Option<Cow<'_, str>> {
        (field < 3).then(|| Cow::Borrowed(self.selected(field)))
    }

    fn parameter(&self, _: usize, value: &Value) -> Option<String> {
        Some(match value {
            Value::String(text) => text::escape(text).into_owned(),
            Value::Integer(n) => n.to_string(),
            _ => return None,
        })
    }

    fn pattern(&self, pattern: String) -> String {
        pattern
    }

    fn stored_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        text::escape(text)
    }

    fn irregular(&self, column: &str) -> Option<String> {
        Some(format!("odd({column})"))
    }

    fn order(&self, column: &str, descending: bool) -> String {
        format!("{column}{}", if descending { " DESC NULLS LAST" } else { " NULLS FIRST" })
    }
}

fn compare(field: usize, comparison: Comparison, value: impl Into<Value>) -> Filter {
    Filter::Compare(Path::whole(field), comparison, value.into())
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn like(pattern: &str) -> Filter {
    Filter::Like(Path::whole(1), Like(pattern.into()))
}

/// The condition, its parameters, and whether it finds too much.
fn compiled(filter: &Filter) -> (String, Vec<String>, bool) {
    let mut parameters = Vec::new();
    let Condition { sql, narrowed } = compile(&Words::new(), filter, &mut parameters);
    (sql, parameters, narrowed)
}

fn check(filter: Filter, sql: &str, parameters: &[&str], narrowed: bool) {
    let parameters = parameters.iter().map(|p| (*p).to_owned()).collect();
    assert_eq!(compiled(&filter), (sql.to_owned(), parameters, narrowed), "{filter:?}");
}

#[test]
fn tests_of_columns_are_exact() {
    let value = |n| Value::Integer(n);
    check(compare(2, Comparison::Gte, value(3)), "stock >= $1", &["3"], false);
    check(
        Filter::In(Path::whole(2), vec![value(1), value(2)]),
        "stock IN ($1, $2)",
        &["1", "2"],
        false,
    );
    check(Filter::In(Path::whole(2), vec![]), "FALSE", &[], false);
    check(
        Filter::Between(Path::whole(2), value(1), value(2)),
        "stock BETWEEN $1 AND $2",
        &["1", "2"],
        false,
    );
    check(Filter::IsNull(Path::whole(3)), "free IS NULL", &[], false);
    check(
        Filter::Prefix(Path::whole(1), "ab".into()),
        "(name >= $1 AND name < $2)",
        &["ab", "ac"],
        false,
    );
    check(Filter::Prefix(Path::whole(1), String::new()), "name >= $1", &[""], false);
    check(
        Filter::Contains(Path::whole(1), text("5%")),
        "name LIKE $1 ESCAPE '|'",
        &["%5|%%"],
        false,
    );
    check(
        like("a\\%%"),
        "((name >= $1 AND name < $2) AND name LIKE $3 ESCAPE '|')",
        &["a%", "a&", "a|%%"],
        false,
    );
    check(like("%|\\"), "name LIKE $1 ESCAPE '|'", &["%||\\"], false);
}

#[test]
fn null_logic_has_two_values() {
    let stock = || compare(2, Comparison::Eq, Value::Integer(1));
    let not = |f| Filter::Not(Box::new(f));
    check(not(stock()), "(stock = $1) IS NOT TRUE", &["1"], false);
    check(not(not(stock())), "stock = $1", &["1"], false);
    check(
        not(Filter::And(vec![stock(), not(Filter::IsNull(Path::whole(1)))])),
        "((stock = $1) IS NOT TRUE OR name IS NULL)",
        &["1"],
        false,
    );
    check(not(Filter::Or(vec![])), "TRUE", &[], false);
    check(not(Filter::All), "FALSE", &[], false);
}

#[test]
fn what_sql_cannot_tell_is_left_open_under_any_negation() {
    let below = || {
        let path = Path { field: 3, step: Step::Json(vec!["x".into()]) };
        Filter::Compare(path, Comparison::Eq, Value::Json(json!(1)))
    };
    let not = |f| Filter::Not(Box::new(f));
    let stock = || compare(2, Comparison::Eq, Value::Integer(1));
    check(below(), "TRUE", &[], true);
    check(not(below()), "TRUE", &[], true);
    check(Filter::And(vec![below(), stock()]), "(TRUE AND stock = $1)", &["1"], true);
    check(
        not(Filter::Or(vec![below(), stock()])),
        "(TRUE AND (stock = $1) IS NOT TRUE)",
        &["1"],
        true,
    );
    // A character may be kept as two, so that a pattern by characters may miss it: those are all found.
    check(like("_b"), "(name LIKE $1 ESCAPE '|' OR odd(name))", &["_b"], true);
    check(not(like("_b")), "TRUE", &[], true);
    check(like("%\0"), "(name LIKE $1 ESCAPE '|' OR odd(name))", &["%\u{1}\u{1}"], true);
}

#[test]
fn escaped_text_keeps_order_and_comes_back() {
    let mut texts =
        ["", "\0", "\0\0", "\0a", "\u{1}", "\u{1}\u{1}", "\u{1}\u{2}", "\u{2}", "a\0", "a", "ab"];
    texts.sort_unstable();
    let escaped = texts.map(|t| text::escape(t).into_owned());
    assert!(escaped.is_sorted() && escaped.iter().all(|e| !e.contains('\0')), "{escaped:?}");
    for (plain, escaped) in texts.iter().zip(&escaped) {
        assert_eq!(text::unescape(escaped).unwrap(), *plain);
    }
    for bad in ["\u{1}", "a\u{1}b"] {
        assert!(text::unescape(bad).is_err(), "{bad:?}");
    }
}

/// Answers what it was given, and keeps the statements.
#[derive(Default)]
struct Script {
    answers: Vec<Vec<Stored>>,
    asked: Vec<(String, Vec<String>)>,
}

#[async_trait::async_trait]
impl Rows<String> for Script {
    async fn records(&mut self, statement: Statement<String>) -> Result<Vec<Stored>> {
        self.asked.push((statement.sql, statement.parameters));
        Ok(if self.answers.is_empty() { Vec::new() } else { self.answers.remove(0) })
    }

    async fn parts(&mut self, _: Statement<String>, _: &[usize], _: &mut Each<'_>) -> Result<()> {
        unreachable!("not asked for")
    }

    async fn number(&mut self, _: Statement<String>) -> Result<u64> {
        unreachable!("not asked for")
    }

    async fn numbers(&mut self, _: Statement<String>, _: usize) -> Result<Vec<(Value, u64)>> {
        unreachable!("not asked for")
    }
}

fn by(field: usize, descending: bool) -> Order {
    Order { path: Path::whole(field), descending }
}

async fn asked(query: &Query) -> Vec<(String, Vec<String>)> {
    let mut script = Script::default();
    page(&Words::new(), query, &mut script).await.unwrap();
    script.asked
}

#[tokio::test]
async fn a_page_begins_after_its_cursor_by_every_criterion() {
    let order = vec![by(1, false), by(2, true)];
    let cursor = |values| Some(Cursor { values, key: Key::String("k".into()), fingerprint: 0 });
    let query = Query {
        order,
        limit: 2,
        cursor: cursor(vec![text("n"), Value::Integer(5)]),
        ..Query::all()
    };
    let expected = "SELECT id, name, stock, free, version FROM thing WHERE TRUE AND name >= $1 AND \
         ((name > $2) OR (name = $3 AND (stock < $4 OR stock IS NULL)) OR (name = $5 AND stock = $6 AND id > $7)) \
         ORDER BY name NULLS FIRST, stock DESC NULLS LAST, id LIMIT 3";
    let parameters = ["n", "n", "n", "5", "n", "5", "k"].map(str::to_owned).to_vec();
    assert_eq!(asked(&query).await, [(expected.to_owned(), parameters)]);
    let query = Query { cursor: cursor(vec![Value::Null, Value::Null]), ..query };
    let sql = &asked(&query).await[0].0;
    let place = "((name IS NOT NULL) OR (name IS NULL AND FALSE) OR (name IS NULL AND stock IS NULL AND id > $1))";
    assert!(sql.contains(place), "{sql}");
}

#[tokio::test]
async fn a_descending_page_goes_on_with_the_nulls() {
    let cursor = Some(Cursor {
        values: vec![Value::Integer(5)],
        key: Key::String("k".into()),
        fingerprint: 0,
    });
    let query = Query { order: vec![by(2, true)], limit: 2, cursor, ..Query::all() };
    let asked = asked(&query).await;
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked[0].0.contains("stock <= $1 AND ((stock < $2) OR (stock = $3 AND id > $4))"),
        "{asked:?}"
    );
    assert!(asked[1].0.contains("WHERE TRUE AND stock IS NULL ORDER BY"), "{asked:?}");
}

#[tokio::test]
async fn rows_that_do_not_match_are_passed_over() {
    let words = Words::new();
    let row = |n: i64| {
        let values = vec![
            text(&format!("k{n:02}")),
            Value::Null,
            Value::Integer(n),
            Value::Json(json!({"x": n % 5})),
        ];
        Stored::new(
            Key::String(format!("k{n:02}").into()),
            unisono_core::Position::ZERO,
            Arc::new(Record::new(values)),
        )
    };
    let rows = |range: std::ops::Range<i64>| range.map(row).collect::<Vec<_>>();
    let path = Path { field: 3, step: Step::Json(vec!["x".into()]) };
    let filter = Filter::Compare(path, Comparison::Eq, Value::Json(json!(4)));
    let query = Query { filter, limit: 2, ..Query::all() };
    // Three rows are asked for at first, twelve then, of which only a few are left.
    let mut script = Script { answers: vec![rows(0..3), rows(3..11)], asked: vec![] };
    let found = page(&words, &query, &mut script).await.unwrap();
    let keys: Vec<_> = found.hits.iter().map(|h| h.stored.key.to_string()).collect();
    assert_eq!((keys, found.next.is_none()), (vec!["k04".to_owned(), "k09".to_owned()], true));
    assert!(
        script.asked[0].0.ends_with("LIMIT 3") && script.asked[1].0.ends_with("LIMIT 12"),
        "{:?}",
        script.asked
    );
    assert_eq!(script.asked[1].1, ["k02"]);
}
