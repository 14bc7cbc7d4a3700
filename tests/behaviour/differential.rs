//! Random questions over random records: every kind must answer what the reference evaluator answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::Rng;
use unisono_core::query::{Aggregate, Groups, Metric, Page, Query, eval};
use unisono_core::source::Reader;
use unisono_core::{Entity, ErrorKind, FieldType, Position, Record, Result, Role, Stored, Value};
use unisono_testkit::Generator;

use crate::fixture::{Fixture, Stop, Verdict, check, check_eq};
use crate::guarded;
use crate::kinds::Tested;

/// One part of the suite.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Filters, orders, pages and counts.
    Queries,
    /// Groups and totals.
    Aggregates,
    /// Words, with filters and facets.
    Searches,
}

/// The parts, with the names of their rows in the report.
pub(crate) const PARTS: &[(&str, &str, Part)] = &[
    ("differential-query", "random queries and counts agree with the reference", Part::Queries),
    (
        "differential-aggregate",
        "random groups and totals agree with the reference",
        Part::Aggregates,
    ),
    ("differential-search", "random searches agree with the reference", Part::Searches),
];

/// Questions of each part for each seed.
const QUESTIONS: usize = 40;

/// Runs one part over all seeds, in every role in which the kind holds records.
pub(crate) async fn run(kind: &Arc<Tested>, part: Part, seeds: &[u64]) -> Verdict {
    let fixture = Fixture::new(kind)?;
    let can = fixture.capability().query;
    let able = match part {
        Part::Queries => can.filter,
        Part::Aggregates => can.aggregate,
        Part::Searches => can.search,
    };
    fixture.needs_that(able, "the question to be answered")?;
    let mut asked = Asked::default();
    for seed in seeds {
        for role in fixture.holding_roles() {
            let fixture = Fixture::new(kind)?;
            let one = guarded(one_seed(&fixture, part, role, *seed, &mut asked)).await;
            kind.clean().await;
            one.map_err(|stop| match stop {
                Stop::Failed(message) => {
                    Stop::Failed(format!("--seed {seed} as {}: {message}", role.as_str()))
                }
                other => other,
            })?;
        }
    }
    if asked.unsupported > 0 {
        let (name, Asked { all, unsupported }) = (kind.column, &asked);
        println!("note {name}: {unsupported} of {all} questions are unsupported");
    }
    check!(
        asked.unsupported * 2 <= asked.all,
        "{} of {} questions are unsupported",
        asked.unsupported,
        asked.all
    );
    Ok(())
}

#[derive(Default)]
struct Asked {
    all: usize,
    unsupported: usize,
}

async fn one_seed(
    fixture: &Fixture,
    part: Part,
    role: Role,
    seed: u64,
    asked: &mut Asked,
) -> Verdict {
    let mut g = Generator::new(seed);
    let refuses = fixture.capability().refuses;
    let entity = g.entity("thing", &|f| refuses(role, f).is_none());
    if part == Part::Searches && entity.search_fields().next().is_none() {
        return Ok(());
    }
    let count = *g.pick(&[0, 1, 10, 60, 200]);
    let records: Vec<_> = g.records(&entity, count).into_values().collect();
    let opened = fixture.holding(role, &entity, &records).await?;
    let mut all = Vec::with_capacity(records.len());
    for (n, record) in records.iter().enumerate() {
        all.push(Stored::new(
            entity.key_of(record)?,
            Position::new(n as u64 + 1)?,
            Arc::new(record.clone()),
        ));
    }
    let case =
        Case { entity, records: records.iter().collect(), all: &all, reader: opened.reader()? };
    for _ in 0..QUESTIONS {
        asked.all += 1;
        let answered = match part {
            Part::Queries => case.query(&mut g).await?,
            Part::Aggregates => case.aggregate(&mut g).await?,
            Part::Searches => case.search(&mut g).await?,
        };
        asked.unsupported += usize::from(!answered);
    }
    opened.source.close().await?;
    Ok(())
}

struct Case<'a> {
    entity: Arc<Entity>,
    records: Vec<&'a Record>,
    all: &'a [Stored],
    reader: Arc<dyn Reader>,
}

/// What a source said; `None` if it says that it cannot answer.
fn supported<T>(result: Result<T>) -> Option<Result<T, ErrorKind>> {
    match result {
        Err(error) if error.kind() == ErrorKind::Unsupported => None,
        result => Some(result.map_err(|e| e.kind())),
    }
}

impl Case<'_> {
    async fn query(&self, g: &mut Generator) -> Result<bool, Stop> {
        let mut query = g.query(&self.entity, &self.records);
        let count = self.reader.count(&self.entity, &query.filter, None).await.map(|at| at.value);
        let Some(count) = supported(count) else { return Ok(false) };
        let expected =
            eval::count(&self.entity, &query.filter, None, self.all.iter()).map_err(|e| e.kind());
        check_eq!(
            count,
            expected,
            "count of {:?}\n    of {:?}",
            query.filter,
            self.entity.fields()
        );
        for page in 0..4 {
            let expected = eval::page(&self.entity, &query, self.all.iter())?;
            let found = self.reader.query(&self.entity, &query).await;
            let Some(found) = supported(found.map(|at| at.value)) else { return Ok(false) };
            check_page(&self.entity, &query, page, found, &expected)?;
            if expected.next.is_none() {
                break;
            }
            query.cursor = expected.next;
        }
        Ok(true)
    }

    async fn aggregate(&self, g: &mut Generator) -> Result<bool, Stop> {
        let question = g.aggregate(&self.entity, &self.records);
        let expected =
            eval::aggregate(&self.entity, &question, self.all.iter()).map_err(|e| e.kind());
        let found = self.reader.aggregate(&self.entity, &question).await.map(|at| at.value);
        let Some(found) = supported(found) else { return Ok(false) };
        let same = match (&found, &expected) {
            (Ok(found), Ok(expected)) => same_groups(&self.entity, &question, found, expected),
            (found, expected) => found == expected,
        };
        check!(
            same,
            "{question:?}\n    of {:?}\n    found {found:?}\n expected {expected:?}",
            self.entity.fields()
        );
        Ok(true)
    }

    async fn search(&self, g: &mut Generator) -> Result<bool, Stop> {
        let filter = match g.rng.random_bool(0.6) {
            true => unisono_core::query::Filter::All,
            false => g.filter(&self.entity, &self.records, 1),
        };
        let facets = g.facets(&self.entity);
        let query = Query {
            search: Some(g.search()),
            filter,
            facets,
            limit: Query::LIMIT_MAX,
            ..Query::all()
        };
        let expected = eval::page(&self.entity, &query, self.all.iter())?;
        let found = self.reader.query(&self.entity, &query).await.map(|at| at.value);
        let Some(found) = supported(found) else { return Ok(false) };
        let found = found.map_err(|kind| Stop::Failed(format!("{query:?}: {}", kind.code())))?;
        let keys = |page: &Page| -> BTreeSet<_> {
            page.hits.iter().map(|h| h.stored.key.clone()).collect()
        };
        check_eq!(keys(&found), keys(&expected), "{query:?}\n    of {:?}", self.entity.fields());
        check_eq!(
            found.facets,
            expected.facets,
            "facets of {query:?}\n    of {:?}",
            self.entity.fields()
        );
        let count = self.reader.count(&self.entity, &query.filter, query.search.as_deref()).await;
        if let Some(count) = supported(count.map(|at| at.value)) {
            check_eq!(count, Ok(expected.hits.len() as u64), "count of {query:?}");
        }
        Ok(true)
    }
}

fn check_page(
    entity: &Entity,
    query: &Query,
    page: usize,
    found: Result<Page, ErrorKind>,
    expected: &Page,
) -> Verdict {
    let keys = |p: &Page| p.hits.iter().map(|h| h.stored.key.to_string()).collect::<Vec<_>>();
    let place = || format!("page {page} of {query:?}\n    of {:?}", entity.fields());
    match found {
        Err(kind) => Err(Stop::Failed(format!("{}: {}", place(), kind.code()))),
        Ok(found) => {
            check_eq!(keys(&found), keys(expected), "keys on {}", place());
            check_eq!(&found, expected, "{}", place());
            Ok(())
        }
    }
}

/// Equal, but for the last digits of totals of floats, which depend on the order of addition.
fn same_groups(entity: &Entity, question: &Aggregate, a: &Groups, b: &Groups) -> bool {
    let is_float_total = |metric: &Metric| matches!(metric, Metric::Sum(p) | Metric::Avg(p) if *p.ty(entity) == FieldType::Float);
    let same = |n: usize, x: &Value, y: &Value| match (x, y) {
        (Value::Float(x), Value::Float(y)) if is_float_total(&question.metrics[n].1) => {
            // Values of the generator reach 1e16, of which a double keeps units.
            (x - y).abs() <= 16.0 + 1e-9 * x.abs().max(y.abs())
        }
        _ => x == y,
    };
    a.total_groups == b.total_groups
        && a.groups.len() == b.groups.len()
        && a.groups.iter().zip(&b.groups).all(|(a, b)| {
            let mut metrics = a.metrics.iter().zip(&b.metrics).enumerate();
            a.keys == b.keys && metrics.all(|(n, (x, y))| same(n, x, y))
        })
}
