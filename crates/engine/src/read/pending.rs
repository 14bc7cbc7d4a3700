//! Reads of an entity that is written behind: what waits for a record is laid over what the sources have of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::{Consistency, Context, Key, Position, Result, Role, Stored, Token};

use crate::answer::{Answer, CacheStatus};
use crate::policies::EntityPolicies;
use crate::read::get;
use crate::read::serving::Serving;
use crate::runtime::Runtime;
use crate::write::behind::{Behind, Look};

type Found = Answer<Option<Arc<Stored>>>;

/// How answers name what decided that the journal was asked.
const RULE: &str = "pending";

/// One record, as it will be when what waits for it is flushed. A strong read waits for that instead.
pub(crate) async fn get(
    serving: &Arc<Serving>,
    policies: &EntityPolicies,
    behind: &Behind,
    context: &Context,
    key: &Key,
    runtime: &Runtime,
) -> Result<Found> {
    if context.consistency == Consistency::Strong {
        let watch = runtime.stopwatch();
        behind.all_flushed(Some(key), context.timeout).await?;
        let timeout = context.timeout.saturating_sub(watch.elapsed());
        let context = Context { timeout, ..context.clone() };
        return get::get(serving, policies, &context, key, runtime).await;
    }
    behind.heard_of(&context.token, context.timeout).await?;
    // Before the sources are asked: what leaves the journal meanwhile is then shown twice over, which changes nothing,
    // and not missed.
    let look = behind.look(key, &context.token);
    let context = demanding(serving, context, look.demanded);
    if look.is_empty() {
        return get::get(serving, policies, &context, key, runtime).await;
    }
    let answer = match look.regardless() {
        Some(value) => of_journal(behind, &context, value),
        None => {
            let base = get::get(serving, policies, &context, key, runtime).await?;
            laid_over(behind, &look, base)
        }
    };
    let mut answer = answer;
    answer.token.merge(&behind.token_of(&look));
    Ok(answer)
}

/// The same request, which demands a position as well.
fn demanding<'a>(serving: &Serving, context: &'a Context, position: Position) -> Cow<'a, Context> {
    if position <= context.token.position(&serving.log.name) {
        return Cow::Borrowed(context);
    }
    let mut context = context.clone();
    context.token.merge(&Token::at(serving.log.name.clone(), position));
    Cow::Owned(context)
}

fn of_journal(behind: &Behind, context: &Context, value: Option<Arc<Stored>>) -> Found {
    Answer {
        value,
        source: Arc::clone(behind.journal_name()),
        role: Role::Journal,
        replica: false,
        position: Position::ZERO,
        token: context.token.clone(),
        age: Duration::ZERO,
        stale: false,
        cache: CacheStatus::Pending,
        rule: RULE.into(),
        failed: Vec::new(),
    }
}

fn laid_over(behind: &Behind, look: &Look, base: Found) -> Found {
    Answer {
        value: look.over(base.value),
        source: Arc::clone(behind.journal_name()),
        role: Role::Journal,
        replica: false,
        cache: CacheStatus::Pending,
        ..base
    }
}

/// A question for many records as it is asked of the sources: after what it must see has been flushed.
pub(crate) async fn flushed<'a>(
    serving: &Serving,
    context: &'a Context,
    runtime: &Runtime,
) -> Result<Cow<'a, Context>> {
    let Some(behind) = &serving.behind else { return Ok(Cow::Borrowed(context)) };
    let watch = runtime.stopwatch();
    let context = match context.consistency {
        Consistency::Eventual => return Ok(Cow::Borrowed(context)),
        Consistency::Strong => {
            behind.all_flushed(None, context.timeout).await?;
            Cow::Borrowed(context)
        }
        Consistency::Session => {
            let demanded = behind.seen_flushed(&context.token, context.timeout).await?;
            demanding(serving, context, demanded)
        }
    };
    let spent = watch.elapsed();
    match spent.is_zero() {
        true => Ok(context),
        false => {
            let timeout = context.timeout.saturating_sub(spent);
            Ok(Cow::Owned(Context { timeout, ..context.into_owned() }))
        }
    }
}
