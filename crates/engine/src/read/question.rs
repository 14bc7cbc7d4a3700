//! Questions for pages, numbers and groups of records.

use std::sync::Arc;

use futures::future::BoxFuture;
use unisono_core::Result;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::Reader;
use unisono_policy::route::Operation;

use crate::answer::Answer;
use crate::read::ask::Reading;
use crate::read::{results, words};

/// One page of records, from those kept if it is there.
pub(crate) async fn query(reading: &Reading<'_>, query: &Query) -> Result<Answer<Page>> {
    let feed = reading.serving.cache.as_ref();
    let kept = feed.zip(reading.policies.results.as_ref());
    let Some((feed, results)) = kept.filter(|_| reading.may_use_kept()) else {
        return find(reading, query).await;
    };
    let name = results::name(query);
    if let Some(answer) = results.find(feed, reading, &name) {
        feed.count(true);
        return Ok(answer);
    }
    feed.count(false);
    let answer = find(reading, query).await?;
    results.keep(reading, name, &answer);
    Ok(answer)
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

/// How many records match.
pub(crate) async fn count(
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

/// Groups and totals.
pub(crate) async fn aggregate(
    reading: &Reading<'_>,
    aggregate: &Aggregate,
) -> Result<Answer<Groups>> {
    let entity = &reading.serving.entity;
    let question = &|reader: Arc<dyn Reader>| {
        let work = async move { reader.aggregate(entity, aggregate).await };
        Box::pin(work) as BoxFuture<'_, _>
    };
    let request = reading.request_for(Operation::Aggregate, &aggregate.filter, &[]);
    reading.ask(&request, question).await
}

async fn page(reading: &Reading<'_>, operation: Operation, query: &Query) -> Result<Answer<Page>> {
    let entity = &reading.serving.entity;
    let question = &|reader: Arc<dyn Reader>| {
        let work = async move { reader.query(entity, query).await };
        Box::pin(work) as BoxFuture<'_, _>
    };
    let request = reading.request_for(operation, &query.filter, &query.order);
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
