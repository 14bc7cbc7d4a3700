//! Questions for pages, numbers and groups of records.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use unisono_core::Result;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Path, Query};
use unisono_core::source::Reader;
use unisono_policy::declaration::WarmQuestion;
use unisono_policy::route::Operation;

use crate::answer::Answer;
use crate::read::ask::Reading;
use crate::read::results::Keepable;
use crate::read::words;

/// One page of records, from the answers kept if it is there.
pub(crate) async fn query(reading: &Reading<'_>, query: &Query) -> Result<Answer<Page>> {
    kept(reading, &query, find(reading, query)).await
}

/// How many records match, from the answers kept if it is there.
pub(crate) async fn count(
    reading: &Reading<'_>,
    filter: &Filter,
    search: Option<&str>,
) -> Result<Answer<u64>> {
    kept(reading, &(filter, search), tally(reading, filter, search)).await
}

/// Groups and totals, from the answers kept if they are there.
pub(crate) async fn aggregate(
    reading: &Reading<'_>,
    aggregate: &Aggregate,
) -> Result<Answer<Groups>> {
    kept(reading, &aggregate, group(reading, aggregate)).await
}

/// Asks a question whatever is kept, and keeps the answer; answers whether it could be kept.
pub(crate) async fn warm(reading: &Reading<'_>, question: &WarmQuestion) -> Result<bool> {
    match question {
        WarmQuestion::Query(query) => renew(reading, &query, find(reading, query)).await,
        WarmQuestion::Count { filter, search } => {
            let search = search.as_deref();
            renew(reading, &(filter, search), tally(reading, filter, search)).await
        }
        WarmQuestion::Aggregate(aggregate) => {
            renew(reading, &aggregate, group(reading, aggregate)).await
        }
    }
}

/// The kept answer to a question, or else what `ask` finds, which is kept.
async fn kept<T: Keepable>(
    reading: &Reading<'_>,
    question: &impl Debug,
    ask: impl Future<Output = Result<Answer<T>>>,
) -> Result<Answer<T>> {
    let feed = reading.serving.cache.as_ref();
    let kept = feed.zip(reading.policies.results.as_ref());
    let Some((feed, results)) = kept.filter(|_| reading.may_use_kept()) else {
        return ask.await;
    };
    let question = text(question);
    if let Some(answer) = results.find(feed, reading, &question) {
        feed.count(true);
        return Ok(answer);
    }
    feed.count(false);
    let answer = ask.await?;
    if reading.may_keep(&answer.source) {
        results.keep(reading, question, &answer);
    }
    Ok(answer)
}

/// Keeps what `ask` finds; answers whether it could be kept.
async fn renew<T: Keepable>(
    reading: &Reading<'_>,
    question: &impl Debug,
    ask: impl Future<Output = Result<Answer<T>>>,
) -> Result<bool> {
    let Some(results) = reading.policies.results.as_ref() else { return Ok(false) };
    let answer = ask.await?;
    Ok(reading.may_keep(&answer.source) && results.keep(reading, text(question), &answer))
}

/// What tells a question from every other one of its form.
fn text(question: &impl Debug) -> String {
    format!("{question:?}")
}

async fn find(reading: &Reading<'_>, query: &Query) -> Result<Answer<Page>> {
    let Some(words) = &query.search else { return page(reading, Operation::Query, query).await };
    match page(reading, Operation::Search, query).await {
        Err(error) if reading.goes_on_without_search(&error) => {
            let plain = words::without(&reading.serving.entity, query, words)?;
            let answer = page(reading, Operation::Query, &plain).await;
            answer.map(|answer| answer.instead_of(&error))
        }
        answer => answer,
    }
}

async fn tally(
    reading: &Reading<'_>,
    filter: &Filter,
    search: Option<&str>,
) -> Result<Answer<u64>> {
    let Some(words) = search else {
        return number(reading, Operation::Count, filter, None).await;
    };
    match number(reading, Operation::SearchCount, filter, search).await {
        Err(error) if reading.goes_on_without_search(&error) => {
            let plain = filter.clone().and(words::filter(&reading.serving.entity, words)?);
            let answer = number(reading, Operation::Count, &plain, None).await;
            answer.map(|answer| answer.instead_of(&error))
        }
        answer => answer,
    }
}

async fn group(reading: &Reading<'_>, aggregate: &Aggregate) -> Result<Answer<Groups>> {
    let entity = &reading.serving.entity;
    let question = &|reader: Arc<dyn Reader>| {
        let work = async move { reader.aggregate(entity, aggregate).await };
        Box::pin(work) as BoxFuture<'_, _>
    };
    let mut request = reading.request_for(Operation::Aggregate, &aggregate.filter, &[]);
    request.clear |= aggregate.paths().any(|path| reading.is_personal(path));
    reading.ask(&request, question).await
}

async fn page(reading: &Reading<'_>, operation: Operation, query: &Query) -> Result<Answer<Page>> {
    let entity = &reading.serving.entity;
    let question = &|reader: Arc<dyn Reader>| {
        let work = async move { reader.query(entity, query).await };
        Box::pin(work) as BoxFuture<'_, _>
    };
    let mut request = reading.request_for(operation, &query.filter, &query.order);
    let facets = query.facets.iter().map(|n| Path::whole(*n));
    request.clear |= facets.into_iter().any(|path| reading.is_personal(&path));
    let mut answer: Answer<Page> = reading.ask(&request, question).await?;
    let shown = answer.value.hits.iter().map(|hit| hit.stored.version);
    answer.token.merge(&reading.token_of(shown));
    Ok(answer)
}

async fn number(
    reading: &Reading<'_>,
    operation: Operation,
    filter: &Filter,
    search: Option<&str>,
) -> Result<Answer<u64>> {
    let entity = &reading.serving.entity;
    let question = &|reader: Arc<dyn Reader>| {
        let work = async move { reader.count(entity, filter, search).await };
        Box::pin(work) as BoxFuture<'_, _>
    };
    reading.ask(&reading.request_for(operation, filter, &[]), question).await
}
