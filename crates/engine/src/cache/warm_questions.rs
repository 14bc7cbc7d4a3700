//! Warming of kept answers: declared questions are asked when a life of the cache begins.

use std::sync::Arc;

use unisono_core::Context;
use unisono_policy::declaration::{CacheDeclaration, WarmQuestion};
use unisono_policy::retry;

use crate::read::ask::Reading;
use crate::read::question;
use crate::read::serving::Serving;
use crate::runtime::Runtime;

/// How often a question is asked whose answer cannot be kept, because it fails or is behind.
const ATTEMPTS_MAX: u32 = 20;

/// Asks the declared questions each time that the cache of an entity begins a life, for as long as the engine runs.
pub(crate) async fn run(serving: Arc<Serving>, runtime: Runtime) {
    let Some(feed) = &serving.cache else { return };
    let mut life = None;
    loop {
        feed.life.until(|now| *now != life).await;
        life = *feed.life.get();
        let policies = serving.policies.present.load_full();
        let declared: Option<&CacheDeclaration> = policies.of(&serving.policies).cache.as_ref();
        let mut left: Vec<_> = declared.iter().flat_map(|cache| &cache.warm_questions).collect();
        feed.warmed.want(left.len());
        for attempt in 1..=ATTEMPTS_MAX {
            let mut again = Vec::new();
            for question in left {
                match keep(&serving, question, &runtime).await {
                    true => feed.warmed.add(1),
                    false => again.push(question),
                }
            }
            left = again;
            if left.is_empty() || *feed.life.get() != life {
                break;
            }
            runtime.sleep(retry::backoff(attempt, runtime.random())).await;
        }
        // They are left to whoever asks them.
        feed.warmed.forget(left.len());
    }
}

/// Whether the answer to a question is kept now.
async fn keep(serving: &Arc<Serving>, question: &WarmQuestion, runtime: &Runtime) -> bool {
    let context = Context::default();
    let policies = serving.policies.present.load_full();
    let reading = Reading::new(serving, policies.of(&serving.policies), &context, runtime);
    question::warm(&reading, question).await.unwrap_or_else(|error| {
        tracing::debug!(%error, entity = %serving.entity.name(), "the answer to a question cannot be kept ready yet");
        false
    })
}
