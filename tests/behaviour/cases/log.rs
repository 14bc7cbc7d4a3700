//! The log of a truth: contiguous, trimmed honestly, with the history of each record; and the engine's own state.

use std::sync::Arc;

use unisono_core::write::Action;
use unisono_core::{Entity, ErrorKind, Operation, Position, Role, Timestamp};
use unisono_testkit::Sample;

use crate::cases::cases;
use crate::fixture::{
    Fixture, Opened, Stop, Verdict, check, check_eq, must_fail, put, unit, write,
};

cases! {
    "bounds" bounds_hold "the log keeps its identity and its ends, also after reopening";
    "tail-1" tail_is_contiguous "pages of the log are contiguous and keep their limits";
    "tail-2" trimmed_tail_is_refused "reading what was trimmed fails with log_truncated";
    "trim" trim_keeps_the_head "trimming never moves the head, and writing goes on after it";
    "history" history_is_newest_first "the changes of one record, newest first, by page";
    "state" state_is_kept "small records of the engine are kept by space and name";
}

fn at(number: u64) -> Result<Position, Stop> {
    Ok(Position::new(number)?)
}

async fn filled(fixture: &Fixture, count: u32) -> Result<(Opened, Arc<Entity>), Stop> {
    fixture.needs(Role::Truth)?;
    let entity = Sample::product();
    let records: Vec<_> = (1..=count).map(Sample::product_record).collect();
    let opened = fixture.holding(Role::Truth, &entity, &records).await?;
    Ok((opened, entity))
}

async fn bounds_hold(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    let entity = Sample::product();
    let opened = fixture.open(Role::Truth, &[&entity]).await?;
    let empty = opened.truth()?.bounds().await?;
    check_eq!((empty.trimmed, empty.head), (Position::ZERO, Position::ZERO), "an empty log");
    check!(!empty.log.is_nil(), "a log has an identity");
    opened.commit(vec![put(&entity, &Sample::product_record(1))?]).await?;
    let opened = fixture.reopen(opened, Role::Truth, &[&entity]).await?;
    let bounds = opened.truth()?.bounds().await?;
    check_eq!(
        (bounds.log, bounds.trimmed, bounds.head),
        (empty.log, Position::ZERO, at(1)?),
        "after one write"
    );
    let other = Fixture::new(&fixture.kind)?;
    let other = other.open(Role::Truth, &[&entity]).await?.truth()?.bounds().await?;
    check!(other.log != bounds.log, "two logs have the same identity");
    Ok(())
}

async fn tail_is_contiguous(fixture: &Fixture) -> Verdict {
    let (opened, _) = filled(fixture, 60).await?;
    let truth = opened.truth()?;
    for (changes_max, bytes_max) in
        [(1000, usize::MAX), (7, usize::MAX), (1, usize::MAX), (1000, 1), (1000, 2000)]
    {
        let mut after = Position::ZERO;
        loop {
            let page = truth.read_log(after, changes_max, bytes_max).await?;
            check!(page.len() <= changes_max, "{} changes, {changes_max} asked for", page.len());
            let weight: usize = page.iter().map(|c| c.weight()).sum();
            check!(
                page.len() <= 1 || weight <= bytes_max.saturating_mul(2),
                "{weight} bytes, {bytes_max} asked for"
            );
            if page.is_empty() {
                break;
            }
            for change in page {
                check_eq!(change.position, after.next(), "contiguous");
                after = change.position;
            }
        }
        check_eq!(
            after.as_u64(),
            60,
            "the end of the log by {changes_max} changes and {bytes_max} bytes"
        );
    }
    check_eq!(truth.read_log(at(60)?, 10, 1000).await?.len(), 0, "nothing after the head");
    Ok(())
}

async fn trimmed_tail_is_refused(fixture: &Fixture) -> Verdict {
    let (opened, entity) = filled(fixture, 10).await?;
    opened.truth()?.trim(at(4)?, Timestamp::EPOCH).await?;
    let opened = fixture.reopen(opened, Role::Truth, &[&entity]).await?;
    let truth = opened.truth()?;
    for after in 0..4 {
        must_fail(
            truth.read_log(at(after)?, 10, 1000).await,
            ErrorKind::LogTruncated,
            "a trimmed change",
        )?;
    }
    let rest = truth.read_log(at(4)?, 100, usize::MAX).await?;
    check_eq!(rest.first().map(|c| c.position.as_u64()), Some(5), "the first change left");
    check_eq!(rest.len(), 6, "the changes left");
    Ok(())
}

async fn trim_keeps_the_head(fixture: &Fixture) -> Verdict {
    let (opened, entity) = filled(fixture, 10).await?;
    let truth = opened.truth()?;
    check_eq!(truth.trim(at(3)?, Timestamp::EPOCH).await?, 3, "trimmed");
    check_eq!(truth.trim(at(3)?, Timestamp::EPOCH).await?, 0, "trimmed again");
    check_eq!(truth.trim(at(1)?, Timestamp::EPOCH).await?, 0, "trimmed to before");
    check_eq!(truth.trim(at(99)?, Timestamp::EPOCH).await?, 7, "trimmed beyond the head");
    let bounds = truth.bounds().await?;
    check_eq!((bounds.trimmed, bounds.head), (at(10)?, at(10)?), "an empty log after trimming");
    check_eq!(
        truth.read_log(at(10)?, 10, 1000).await?.len(),
        0,
        "nothing is left, and nothing is missing"
    );
    let opened = fixture.reopen(opened, Role::Truth, &[&entity]).await?;
    let committed = opened.commit(vec![put(&entity, &Sample::product_record(11))?]).await?;
    check_eq!(committed[0].changes[0].position.as_u64(), 11, "positions go on");
    check!(opened.get(&entity, &Sample::key("p3")).await?.is_some(), "records are not trimmed");
    Ok(())
}

async fn history_is_newest_first(fixture: &Fixture) -> Verdict {
    let (opened, entity) = filled(fixture, 3).await?;
    let key = Sample::key("p2");
    for n in 0..3 {
        let patch = Action::Patch(serde_json::json!({"stock": n}));
        opened.commit(vec![unit(vec![write(&entity, &key, patch)])]).await?;
        opened.commit(vec![put(&entity, &Sample::product_record(1))?]).await?;
    }
    opened.commit(vec![unit(vec![write(&entity, &key, Action::Delete)])]).await?;
    let truth = opened.truth()?;
    let positions = |before: Option<u64>, limit| {
        let (truth, entity, key) = (Arc::clone(&truth), Arc::clone(&entity), key.clone());
        async move {
            let before = before.map(at).transpose()?;
            let changes = truth.history(&entity, &key, before, limit).await?;
            Ok::<_, Stop>(changes.iter().map(|c| c.position.as_u64()).collect::<Vec<_>>())
        }
    };
    check_eq!(positions(None, 100).await?, [10, 8, 6, 4, 2], "all");
    check_eq!(positions(None, 2).await?, [10, 8], "the newest two");
    check_eq!(positions(Some(8), 2).await?, [6, 4], "before a position");
    check_eq!(positions(Some(2), 2).await?, Vec::<u64>::new(), "before the first");
    let newest = truth.history(&entity, &key, None, 1).await?;
    check_eq!(newest[0].operation, Operation::Delete, "a delete is part of the history");
    check_eq!(
        truth.history(&entity, &Sample::key("none"), None, 9).await?.len(),
        0,
        "no such record"
    );
    Ok(())
}

async fn state_is_kept(fixture: &Fixture) -> Verdict {
    let (opened, entity) = filled(fixture, 1).await?;
    let truth = opened.truth()?;
    let long = "ö\u{0}'".repeat(5000);
    for (space, name, value) in [
        ("letters", "b", Some("1")),
        ("letters", "a", Some(long.as_str())),
        ("letters", "é", Some("")),
        ("letters", "Z", Some("2")),
        ("leases", "a", Some("other")),
        ("letters", "b", Some("3")),
        ("letters", "Z", None),
        ("letters", "never", None),
    ] {
        truth.put_state(space, name, value.map(str::to_owned)).await?;
    }
    let opened = fixture.reopen(opened, Role::Truth, &[&entity]).await?;
    let truth = opened.truth()?;
    let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    check_eq!(
        truth.list_state("letters").await?,
        [pair("a", &long), pair("b", "3"), pair("é", "")],
        "letters"
    );
    check_eq!(truth.list_state("leases").await?, [pair("a", "other")], "leases");
    check_eq!(truth.list_state("none").await?, [], "an empty space");
    check_eq!(truth.bounds().await?.head.as_u64(), 1, "state takes no position");
    Ok(())
}
