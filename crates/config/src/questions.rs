//! `[[entities.NAME.cache.warm_questions]]`: questions in the shape in which they are sent over HTTP.

use std::time::Duration;

use serde_json::Value as Json;
use unisono_core::query::parse;
use unisono_core::{Entity, Error, FieldType, Result};
use unisono_policy::declaration::WarmQuestion;

use crate::fields::json;
use crate::sections::WARM_QUESTION;
use crate::table::Table;

/// The most questions of one cache.
const QUESTIONS_MAX: usize = 100;

/// The kinds of questions, by their keys.
const KINDS: [&str; 3] = ["query", "count", "aggregate"];

/// The questions of a cache that keeps answers for `results`; `None` if a problem was reported, here or of the entity.
pub(crate) fn warm(
    cache: &Table<'_>,
    entity: Option<&Entity>,
    results: Duration,
) -> Option<Vec<WarmQuestion>> {
    let tables = cache.tables("warm_questions", &WARM_QUESTION);
    let spot = cache.spot_of("warm_questions");
    if results.is_zero() && !tables.is_empty() {
        let message = "`warm_questions` needs `results`, where the answers are kept";
        cache.report.error_with(&spot, message, "set results = \"60s\"");
        return None;
    }
    if tables.len() > QUESTIONS_MAX {
        let message = format!("a cache has at most {QUESTIONS_MAX} `warm_questions`");
        cache.report.error(&spot, message);
    }
    tables
        .into_iter()
        .map(|table| question(table, entity))
        .collect::<Vec<_>>()
        .into_iter()
        .collect()
}

fn question(table: Table<'_>, entity: Option<&Entity>) -> Option<WarmQuestion> {
    let given = KINDS.map(|kind| table.item(kind).map(|found| (kind, found)));
    let (report, spot) = (table.report, table.spot.clone());
    table.finish();
    let mut given = given.into_iter().flatten();
    let (Some((kind, found)), None) = (given.next(), given.next()) else {
        let message = "a question is one of `query`, `count` and `aggregate`";
        report.error_with(&spot, message, "write each question as a table of its own");
        return None;
    };
    match parse_body(entity?, kind, &json(&FieldType::Json, found.value)?) {
        Ok(question) => Some(question),
        Err(error) => {
            let place = ["parameter", "field", "metric"].map(|name| error.detail(name));
            let place: Vec<_> = place.iter().flatten().map(|part| format!("`{part}`: ")).collect();
            let message = format!("{}{}", place.concat(), error.message());
            report.error_maybe(&found.spot, message, error.hint_text().map(str::to_owned));
            None
        }
    }
}

fn parse_body(entity: &Entity, kind: &str, body: &Json) -> Result<WarmQuestion> {
    Ok(match kind {
        "query" => WarmQuestion::Query(Box::new(parse::query(entity, body)?)),
        "aggregate" => WarmQuestion::Aggregate(Box::new(parse::aggregate(entity, body)?)),
        _ => {
            let members = body.as_object().into_iter().flatten();
            if let Some((name, _)) =
                members.clone().find(|(n, _)| !["where", "search"].contains(&n.as_str()))
            {
                return Err(Error::invalid("a count takes `where` and `search` only")
                    .with("parameter", name));
            }
            let query = parse::query(entity, body)?;
            WarmQuestion::Count { filter: query.filter, search: query.search }
        }
    })
}
