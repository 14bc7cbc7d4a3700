//! The archive: backups, and whether the archived logs are as they were written; and what is to be in none of them.

use std::sync::Arc;

use crate::admin::{members, of_every_entity, optional, text};
use crate::app::Call;
use crate::problem::Failure;
use crate::reply::{self, Reply};
use hyper::StatusCode;
use hyper::body::Incoming;
use serde_json::json;

/// `DELETE /admin/v1/subjects/{subject}`
pub(crate) async fn erase(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    // A person is in all entities.
    of_every_entity(call)?;
    let erased = call.operator().erase_subject(&call.context()?, &call.second).await?;
    reply::json(StatusCode::OK, &json!({ "erased": erased }))
}

/// `GET /admin/v1/backups`
pub(crate) async fn backups(call: &Call<'_>) -> Reply {
    let [truth] = call.known_parameters(["truth"])?;
    of_every_entity(call)?;
    let backups = call.engine().backups(truth.as_deref()).await?;
    reply::json(StatusCode::OK, &json!({ "backups": backups }))
}

/// `POST /admin/v1/backups`
pub(crate) async fn back_up(call: &Call<'_>, body: Incoming) -> Reply {
    let truth = truth(call, body).await?;
    let backups = call.operator().back_up(truth.as_deref(), &|_| {}).await?;
    reply::json(StatusCode::OK, &json!({ "backups": backups }))
}

/// `POST /admin/v1/archive/check`
pub(crate) async fn check(call: &Call<'_>, body: Incoming) -> Reply {
    let truth = truth(call, body).await?;
    let logs = call.engine().check_archive(truth.as_deref()).await?;
    let whole = logs.iter().all(|log| log.problems.is_empty());
    reply::json(StatusCode::OK, &json!({ "whole": whole, "logs": logs }))
}

/// The truth that a body names, if it names one.
async fn truth(call: &Call<'_>, body: Incoming) -> Result<Option<Arc<str>>, Failure> {
    call.known_parameters([])?;
    of_every_entity(call)?;
    let body = optional(call, body).await?;
    let [truth] = members(&body, ["truth"])?;
    Ok(text("truth", truth)?)
}
