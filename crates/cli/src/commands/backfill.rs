//! `unisono backfill`: makes the copy of an entity in a follower anew.

use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::core::Result;

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::Target;
use crate::terminal::text;

/// Make the copy of an entity in a follower anew, beside the stream
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The entity
    entity: String,
    /// The follower's source
    source: String,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let work = async |target: &dyn Target| backfill(&args, target, session).await;
    let copied = session.on_target(&args.connect, work).await?;
    if session.output.is_json() {
        session
            .output
            .json(&json!({"entity": args.entity, "source": args.source, "copied": copied}))?;
    } else {
        let (entity, source, copied) = (&args.entity, &args.source, text::count(copied));
        session.output.line(format_args!(
            "{entity} in {source}: complete; {copied} records had to be copied"
        ))?;
    }
    Ok(exit::OK)
}

/// Waits until the copy is complete; answers how many records the follower did not have, or had otherwise.
async fn backfill(args: &Args, target: &dyn Target, session: &Session) -> Result<u64> {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    /// The delivery takes up the order a moment later, and a small copy may be over before anyone has looked.
    const LOOKS_UNTIL_BEGUN: u32 = 20;
    let total = target.count(&args.entity).await?;
    let before = copied(&delivery(&target.status().await?, args));
    target.backfill(&args.entity, &args.source).await?;
    let mut progress = session.progress(format!("{} in {}", args.entity, args.source));
    let (mut looks, mut begun) = (0, false);
    loop {
        let delivery = delivery(&target.status().await?, args);
        let done = copied(&delivery).saturating_sub(before);
        begun |= delivery["state"] == "backfilling" || done > 0 || looks >= LOOKS_UNTIL_BEGUN;
        if begun && delivery["state"] == "live" {
            return Ok(done);
        }
        progress.update(done.min(total), total, done);
        looks += 1;
        session.runtime.sleep(LOOK_EVERY).await;
    }
}

fn delivery(status: &Json, args: &Args) -> Json {
    let mut deliveries = status["deliveries"].as_array().into_iter().flatten();
    let found = deliveries.find(|d| d["entity"] == *args.entity && d["source"] == *args.source);
    found.cloned().unwrap_or_default()
}

fn copied(delivery: &Json) -> u64 {
    delivery["copied"].as_u64().unwrap_or(0)
}
