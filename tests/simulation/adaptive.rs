//! What `adaptive` promises of itself: it demands more only after a wait, level by level, and says why it moves.

use unisono_core::Ack;
use unisono_engine::Engine;
use unisono_engine::status::AdaptiveStatus;

use crate::history::History;
use crate::shape::Shape;

const LEVELS: [&str; 3] = ["truth", "quorum", "all"];

/// How `adaptive` is doing; nothing if the world has it not.
pub(crate) async fn status(engine: &Engine) -> Option<AdaptiveStatus> {
    engine.status().await.entities.into_iter().find_map(|entity| entity.adaptive)
}

/// Looks at the last moves.
pub(crate) async fn check(shape: &Shape, history: &History, engine: &Engine) {
    // Looking takes calls, which only those worlds are to have that need them.
    let Some(policy) = shape.adaptive else { return };
    let Some(status) = status(engine).await else { return };
    let rank = |level: &str| LEVELS.iter().position(|one| *one == level);
    for (n, made) in status.moves.iter().enumerate() {
        if made.why.is_empty() {
            history.breach("adaptive does not say why it moves".to_owned());
        }
        if rank(made.to) < rank(made.from) {
            history.count("adaptive moved down");
            continue;
        }
        history.count("adaptive moved up");
        let before = n.checked_sub(1).and_then(|before| status.moves.get(before));
        let waited = before.map(|before| made.time.seconds_since(before.time));
        let is_early = waited.is_some_and(|waited| waited < policy.dwell.as_secs_f64());
        if is_early || rank(made.from).map(|rank| rank + 1) != rank(made.to) {
            history.breach(format!("adaptive goes up too quickly: {:?}", status.moves));
        }
    }
}

/// What the answer to a write says that it has waited for.
pub(crate) fn seen(history: &History, told: Option<&Ack>) {
    match told {
        Some(Ack::All) => history.count("adaptive write answered by all"),
        Some(Ack::Count(_)) => history.count("adaptive write answered by a quorum"),
        // It says so only if less was demanded than when it began.
        Some(Ack::Truth | Ack::Named(_)) | None => {}
    }
}
