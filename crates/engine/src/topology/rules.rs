//! By which `where` each follower was brought to hold what it holds: remembered in the truth, so that another one is
//! noticed whenever it was declared, also while nothing ran.

use unisono_core::Result;
use unisono_core::source::Truth;

/// The engine's own space of these in a truth.
const SPACE: &str = "follower_rules";

/// The rule that a follower was brought into line with; `None` if it holds all records.
pub(crate) async fn kept(truth: &dyn Truth, entity: &str, source: &str) -> Result<Option<String>> {
    let name = name(entity, source);
    let all = truth.list_state(SPACE).await?;
    Ok(all.into_iter().find(|(known, _)| *known == name).map(|(_, rule)| rule))
}

/// Remembers the rule, once it is certain that the follower will be brought into line with it.
pub(crate) async fn keep(
    truth: &dyn Truth,
    entity: &str,
    source: &str,
    rule: Option<&str>,
) -> Result<()> {
    truth.put_state(SPACE, &name(entity, source), rule.map(str::to_owned)).await
}

/// Has another truth remember the same.
pub(crate) async fn copy(from: &dyn Truth, to: &dyn Truth) -> Result<()> {
    for (name, rule) in from.list_state(SPACE).await? {
        to.put_state(SPACE, &name, Some(rule)).await?;
    }
    Ok(())
}

fn name(entity: &str, source: &str) -> String {
    format!("{entity}/{source}")
}
