//! Opening, preparing, changing the declaration, closing.

use std::sync::Arc;

use serde_json::json;
use unisono_core::{Entity, ErrorKind, Field, FieldType, Role};
use unisono_testkit::Sample;

use crate::cases::cases;
use crate::fixture::{Feed, Fixture, Opened, Stop, Verdict, check, check_eq, must_fail, put};

cases! {
    "kind" kind_declares_itself "a kind and its options are declared in full";
    "probe" probe_answers "an open source gives a sign of life";
    "prepare-1" prepare_repeats "preparing again changes nothing";
    "prepare-2" prepare_adds "a field can be added; records stay";
    "prepare-3" prepare_refuses_loss "a change of type is refused and changes nothing";
    "close" close_ends "after closing, calls fail with unavailable";
}

async fn kind_declares_itself(fixture: &Fixture) -> Verdict {
    let kind = &fixture.kind;
    let opened = fixture.open_bare().await?;
    check_eq!(opened.source.kind(), kind.name(), "the source must name its kind");
    check_eq!(opened.source.name().as_ref(), "tested", "the source must keep its name");
    check!(!kind.capability().roles.is_empty(), "a kind must play a role");
    check!(kind.summary().len() > 10, "a kind must say what it is");
    for option in kind.options() {
        check!(option.doc.len() > 10, "option {} has no documentation", option.name);
    }
    let roles = kind.capability().roles;
    let source = || Arc::clone(&opened.source);
    check_eq!(source().truth().is_some(), roles.contains(&Role::Truth), "role truth as declared");
    check_eq!(
        source().follower().is_some(),
        roles.contains(&Role::Follower),
        "role follower as declared"
    );
    check_eq!(source().cache().is_some(), roles.contains(&Role::Cache), "role cache as declared");
    check_eq!(
        source().journal().is_some(),
        roles.contains(&Role::Journal),
        "role journal as declared"
    );
    Ok(())
}

async fn probe_answers(fixture: &Fixture) -> Verdict {
    let opened = fixture.open_bare().await?;
    check!(!opened.source.probe().await?.engine.is_empty(), "the probe must name the engine");
    Ok(())
}

fn thing(fields: Vec<Field>) -> Result<Arc<Entity>, Stop> {
    let mut all = vec![Field::new("id", FieldType::String)];
    all.extend(fields);
    Ok(Arc::new(Entity::new("thing", "id", all)?))
}

/// Puts one record in a source that was prepared in a role.
async fn hold(
    opened: &Opened,
    role: Role,
    feed: &mut Feed,
    entity: &Arc<Entity>,
    json: serde_json::Value,
) -> Verdict {
    let record = Sample::record(entity, &json);
    if role == Role::Truth {
        opened.commit(vec![put(entity, &record)?]).await?;
        return Ok(());
    }
    feed.entity = Arc::clone(entity);
    let change = feed.changes.put(entity, record);
    feed.apply(opened, &[change]).await
}

async fn prepare_repeats(fixture: &Fixture) -> Verdict {
    let entity = thing(vec![Field::new("name", FieldType::String)])?;
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.open(role, &[&entity]).await?;
        hold(&opened, role, &mut Feed::new(&entity), &entity, json!({"id": "a", "name": "x"}))
            .await?;
        check_eq!(
            opened.prepare(role, &[&entity]).await?,
            Vec::<String>::new(),
            "nothing is left to prepare"
        );
        let opened = fixture.reopen(opened, role, &[&entity]).await?;
        check_eq!(
            opened.prepare(role, &[&entity]).await?,
            Vec::<String>::new(),
            "nothing is left to prepare"
        );
        check!(opened.get(&entity, &Sample::key("a")).await?.is_some(), "the record is gone");
    }
    Ok(())
}

async fn prepare_adds(fixture: &Fixture) -> Verdict {
    let before = thing(vec![Field::new("name", FieldType::String)])?;
    let note = Field { search: true, ..Field::new("note", FieldType::Text) };
    let name = Field { index: true, ..Field::new("name", FieldType::String) };
    let count = Field { index: true, ..Field::new("count", FieldType::Integer) };
    let after = thing(vec![note, name, count])?;
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.open(role, &[&before]).await?;
        let mut feed = Feed::new(&before);
        hold(&opened, role, &mut feed, &before, json!({"id": "a", "name": "x"})).await?;
        let opened = reopen_bare(&fixture, opened).await?;
        opened.prepare(role, &[&after]).await?;
        let found = opened.get(&after, &Sample::key("a")).await?;
        // A follower may forget instead, together with its checkpoint: then it is filled again.
        if role == Role::Follower && opened.follower()?.checkpoint(&after).await?.is_none() {
            check!(found.is_none(), "the checkpoint was forgotten but not the records");
            feed.checkpoint = None;
        } else {
            let expected = Sample::record(&after, &json!({"id": "a", "name": "x"}));
            check_eq!(
                found.map(|s| s.record.as_ref().clone()),
                Some(expected),
                "the record must stay"
            );
        }
        hold(&opened, role, &mut feed, &after, json!({"id": "b", "note": "n", "count": 3})).await?;
        let found = opened.get(&after, &Sample::key("b")).await?;
        let expected = Sample::record(&after, &json!({"id": "b", "note": "n", "count": 3}));
        check_eq!(
            found.map(|s| s.record.as_ref().clone()),
            Some(expected),
            "the added fields must be kept"
        );
    }
    Ok(())
}

async fn prepare_refuses_loss(fixture: &Fixture) -> Verdict {
    let before = thing(vec![Field::new("name", FieldType::String)])?;
    let after = thing(vec![Field::new("name", FieldType::Integer)])?;
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.open(role, &[&before]).await?;
        hold(&opened, role, &mut Feed::new(&before), &before, json!({"id": "a", "name": "x"}))
            .await?;
        let opened = reopen_bare(&fixture, opened).await?;
        let error = must_fail(
            opened.prepare(role, &[&after]).await,
            ErrorKind::SchemaMismatch,
            "a change of type",
        )?;
        check!(
            error.hint_text().is_some_and(|h| !h.is_empty()),
            "the error must show the way out: {error:?}"
        );
        let opened = reopen_bare(&fixture, opened).await?;
        opened.prepare(role, &[&before]).await?;
        let found = opened.get(&before, &Sample::key("a")).await?;
        let expected = Sample::record(&before, &json!({"id": "a", "name": "x"}));
        check_eq!(
            found.map(|s| s.record.as_ref().clone()),
            Some(expected),
            "the record must be as it was"
        );
    }
    Ok(())
}

/// Closes and opens a durable source without preparing it; leaves any other as it is.
async fn reopen_bare(fixture: &Fixture, opened: Opened) -> Result<Opened, Stop> {
    if !fixture.capability().durable {
        return Ok(opened);
    }
    opened.source.close().await?;
    drop(opened);
    Ok(fixture.open_bare().await?)
}

async fn close_ends(fixture: &Fixture) -> Verdict {
    let entity = Sample::product();
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.holding(role, &entity, &[Sample::product_record(1)]).await?;
        let (reader, closed) = (opened.reader()?, ErrorKind::Unavailable);
        let (truth, follower) = (opened.truth().ok(), opened.follower().ok());
        opened.source.close().await?;
        must_fail(opened.source.probe().await, closed, "probe")?;
        must_fail(reader.get(&entity, &[Sample::key("p1")]).await, closed, "get")?;
        if let (Role::Truth, Some(truth)) = (role, &truth) {
            must_fail(truth.bounds().await, closed, "bounds")?;
            must_fail(
                truth.commit(vec![put(&entity, &Sample::product_record(2))?]).await,
                closed,
                "commit",
            )?;
        }
        if let (Role::Follower, Some(follower)) = (role, &follower) {
            must_fail(follower.checkpoint(&entity).await, closed, "checkpoint")?;
            let mut feed = Feed::new(&entity);
            let change = feed.changes.put(&entity, Sample::product_record(2));
            must_fail(follower.apply(feed.batch(&[change])).await, closed, "apply")?;
        }
    }
    Ok(())
}
