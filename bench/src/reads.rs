//! GET of a cached record against a bare server that answers the same bytes from memory.

use crate::data::product_json;
use crate::places::Server;
use crate::report::{Report, middle, rate, time};
use crate::{Plan, Result, load};

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ours = Server::unisono(folder.path(), &[])?;
    let bare = Server::bare()?;
    load::run(ours.address, 1, plan.time / 30, |_, _| {
        load::put("/v1/product/p1", &product_json(1))
    })
    .await?;
    let get = |_: usize, _: u64| load::get("/v1/product/p1");
    let (mut many, mut one) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let a = load::run(ours.address, 64, plan.time, get).await?;
        let b = load::run(bare.address, 64, plan.time, get).await?;
        many.push((a.per_second, b.per_second));
        let a = load::run(ours.address, 1, plan.time, get).await?;
        let b = load::run(bare.address, 1, plan.time, get).await?;
        one.push((middle(&a.times), middle(&b.times)));
    }
    report.pair("GET cached, 64 connections", &many, rate, "at least 0.8x");
    report.pair("GET cached, 1 connection, p50", &one, time, "at most 1.3x");
    Ok(())
}
