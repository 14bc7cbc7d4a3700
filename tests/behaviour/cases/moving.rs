//! What a log goes on above, whose writes a truth refuses, and files that are kept whole.

use std::sync::Arc;

use serde_json::json;
use unisono_core::vault::Vault;
use unisono_core::write::Action;
use unisono_core::{Effect, ErrorKind, Position, Record, Role};
use unisono_testkit::Sample;

use crate::cases::cases;
use crate::fixture::{
    Fixture, Opened, Stop, Verdict, check, check_eq, must_fail, put, unit, write,
};

cases! {
    "begin-1" an_empty_log_begins_above "an empty log goes on in the generation after a position, and stays there when it is asked again";
    "begin-2" a_log_with_changes_stays "a log that holds changes does not begin anew";
    "above-1" a_log_goes_on_above "a unit comes into the generation after a position, and what was in the log stays";
    "fence-1" refused_writes_take_no_place "writes of a refused entity fail alone, also in a process that was there before";
    "fence-2" others_go_on "writes of other entities take place as before";
    "fence-3" the_first_word_counts "of several that say something about the same, one is heard";
    "vault-1" files_are_created_once "a file that is there is not replaced, whoever creates it at the same time";
    "vault-2" files_are_loaded_as_they_were "what is loaded is what was created, also after reopening";
    "vault-3" folders_tell_all_names "a folder tells the names in it and nothing else, in order";
}

fn product(id: &str) -> Record {
    Sample::record(&Sample::product(), &json!({"id": id, "name": "x"}))
}

fn at(generation: u64, sequence: u64) -> Result<Position, Stop> {
    Ok(Position::new((generation << 48) + sequence)?)
}

/// A truth, if it can begin above another log.
async fn above(fixture: &Fixture) -> Result<Opened, Stop> {
    fixture.needs(Role::Truth)?;
    fixture.open(Role::Truth, &[&Sample::product(), &Sample::order()]).await.map_err(Stop::from)
}

async fn an_empty_log_begins_above(fixture: &Fixture) -> Verdict {
    let (opened, e) = (above(fixture).await?, Sample::product());
    let truth = opened.truth()?;
    let begun = truth.begin_above(at(3, 17)?).await?;
    check_eq!(begun, at(4, 0)?, "the head");
    check_eq!(truth.begin_above(at(3, 17)?).await?, begun, "asked again");
    check_eq!(truth.begin_above(at(2, 5)?).await?, begun, "for less");
    let first = opened.commit(vec![put(&e, &product("a"))?]).await?;
    check_eq!(first[0].changes[0].position, begun.next(), "the first change");
    check_eq!(truth.begin_above(at(3, 17)?).await?, begun.next(), "a log that has come beyond");
    let log = truth.read_log(begun, 10, usize::MAX).await?;
    check_eq!(log.len(), 1, "the log behind its beginning");
    Ok(())
}

async fn a_log_with_changes_stays(fixture: &Fixture) -> Verdict {
    let (opened, e) = (above(fixture).await?, Sample::product());
    opened.commit(vec![put(&e, &product("a"))?]).await?;
    let truth = opened.truth()?;
    let before = truth.bounds().await?;
    must_fail(truth.begin_above(at(3, 17)?).await, ErrorKind::InvalidInput, "a log with changes")?;
    check_eq!(truth.bounds().await?, before, "bounds");
    Ok(())
}

async fn a_log_goes_on_above(fixture: &Fixture) -> Verdict {
    let (opened, e) = (above(fixture).await?, Sample::product());
    opened.commit(vec![put(&e, &product("a"))?, put(&e, &product("b"))?]).await?;
    let truth = opened.truth()?;
    let before = truth.bounds().await?;
    let above = truth.commit_above(at(3, 17)?, put(&e, &product("c"))?).await?;
    check_eq!(above.changes[0].position, at(4, 1)?, "the unit");
    let next = opened.commit(vec![put(&e, &product("a"))?]).await?;
    check_eq!(next[0].changes[0].position, at(4, 2)?, "the next one");
    check_eq!(next[0].changes[0].replaced, Some(Position::new(1)?), "the version before");
    let below = truth.commit_above(at(2, 5)?, put(&e, &product("d"))?).await?;
    check_eq!(below.changes[0].position, at(4, 3)?, "a log that has come further");
    let missing = unit(vec![write(&e, &Sample::key("gone"), Action::Delete)]);
    must_fail(
        truth.commit_above(at(9, 0)?, missing).await,
        ErrorKind::NotFound,
        "a unit that fails",
    )?;
    let bounds = truth.bounds().await?;
    check_eq!((bounds.log, bounds.head), (before.log, at(4, 3)?), "the log");
    let all: Vec<_> = truth.read_log(Position::ZERO, 10, usize::MAX).await?;
    let found: Vec<_> = all.iter().map(|c| (c.position, c.key.to_string())).collect();
    let expected =
        [(at(0, 1)?, "a"), (at(0, 2)?, "b"), (at(4, 1)?, "c"), (at(4, 2)?, "a"), (at(4, 3)?, "d")];
    check_eq!(found, expected.map(|(p, k)| (p, k.to_owned())), "all changes");
    let rest = truth.read_log(before.head, 10, usize::MAX).await?;
    check_eq!(rest.len(), 3, "the changes after the old head");
    Ok(())
}

async fn refused_writes_take_no_place(fixture: &Fixture) -> Verdict {
    let (opened, e) = (above(fixture).await?, Sample::product());
    let order = Sample::order();
    opened.commit(vec![put(&e, &product("a"))?]).await?;
    // Where two processes can have the same data, the other one was there before.
    let durable = fixture.capability().durable;
    let other = if durable { Some(above(fixture).await?) } else { None };
    let truth = opened.truth()?;
    let head = truth.fence(e.name(), None, Some("elsewhere")).await?;
    check_eq!(head, Some(Position::new(1)?), "the head");
    check_eq!(
        truth.fences().await?,
        [(e.name().to_string(), "elsewhere".to_owned())].into(),
        "what was said"
    );
    for truth in
        [Some(truth.clone()), other.as_ref().map(Opened::truth).transpose()?].into_iter().flatten()
    {
        let both = unit(vec![
            write(
                &order,
                &Sample::key("o"),
                Action::Put(Sample::record(&order, &json!({"id": "o"}))),
            ),
            write(&e, &Sample::key("b"), Action::Put(product("b"))),
        ]);
        for units in
            [vec![put(&e, &product("b"))?], vec![both.clone()], vec![put(&e, &product("b"))?, both]]
        {
            for result in truth.commit(units).await? {
                let error = must_fail(result, ErrorKind::Fenced, "a refused write")?;
                check_eq!(error.effect_on_data(), Effect::None, "its effect");
            }
        }
    }
    check_eq!(truth.bounds().await?.head, Position::new(1)?, "the head after it");
    check!(opened.get(&e, &Sample::key("b")).await?.is_none(), "a refused record is there");
    check_eq!(truth.fence(e.name(), Some("elsewhere"), None).await?, head, "allowed again");
    opened.commit(vec![put(&e, &product("b"))?]).await?;
    Ok(())
}

async fn others_go_on(fixture: &Fixture) -> Verdict {
    let (opened, e) = (above(fixture).await?, Sample::product());
    let order = Sample::order();
    let truth = opened.truth()?;
    truth.fence(e.name(), None, Some("elsewhere")).await?;
    let of_order = |id: &str| put(&order, &Sample::record(&order, &json!({"id": id})));
    let units = vec![of_order("1")?, put(&e, &product("a"))?, of_order("2")?];
    let results = truth.commit(units).await?;
    let told: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().map(|c| c.changes[0].position.as_u64()).map_err(|e| e.kind()))
        .collect();
    check_eq!(told, [Ok(1), Err(ErrorKind::Fenced), Ok(2)], "outcomes");
    // The engine's own notes have a place behind it.
    let above = truth.commit_above(at(3, 0)?, of_order("3")?).await?;
    check_eq!(above.changes[0].position, at(4, 1)?, "a unit above");
    Ok(())
}

async fn the_first_word_counts(fixture: &Fixture) -> Verdict {
    let (opened, e) = (above(fixture).await?, Sample::product());
    let truth = opened.truth()?;
    let said = ["x", "y", "z"].map(|to| truth.fence(e.name(), None, Some(to)));
    let heard: Vec<_> =
        futures::future::join_all(said).await.into_iter().collect::<Result<_, _>>()?;
    check_eq!(heard.iter().flatten().count(), 1, "how many were heard: {heard:?}");
    let one = truth.fences().await?.remove(e.name().as_ref()).unwrap_or_default();
    check!(truth.fence(e.name(), Some("other"), None).await?.is_none(), "what nobody said");
    check!(truth.fence(e.name(), Some(&one), Some("next")).await?.is_some(), "what was said");
    check!(truth.fence(e.name(), Some(&one), None).await?.is_none(), "what is said no more");
    Ok(())
}

async fn vault(fixture: &Fixture) -> Result<(Opened, Arc<dyn Vault>), Stop> {
    let opened = fixture.open_bare().await?;
    let Some(vault) = Arc::clone(&opened.source).vault() else {
        return Err(Stop::NotApplicable("needs vault".to_owned()));
    };
    opened.source.prepare(&[]).await?;
    Ok((opened, vault))
}

async fn files_are_created_once(fixture: &Fixture) -> Verdict {
    let (_opened, vault) = vault(fixture).await?;
    let contents: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 100_000]).collect();
    let creating = contents.iter().map(|content| vault.create("a/one.bin", content.clone()));
    let taken: Vec<bool> =
        futures::future::join_all(creating).await.into_iter().collect::<Result<_, _>>()?;
    check_eq!(taken.iter().filter(|taken| **taken).count(), 1, "how many were taken");
    let kept = vault.load("a/one.bin").await?.unwrap_or_default();
    let winner = taken.iter().position(|taken| *taken).unwrap_or_default();
    check!(kept == contents[winner], "the file is that of the one that was taken");
    check!(!vault.create("a/one.bin", b"other".to_vec()).await?, "a second one was taken");
    check!(vault.load("a/one.bin").await? == Some(kept), "the file was replaced");
    Ok(())
}

async fn files_are_loaded_as_they_were(fixture: &Fixture) -> Verdict {
    let (opened, kept) = vault(fixture).await?;
    let files =
        [("empty", Vec::new()), ("deep/er/bytes.bin", (0..=255).cycle().take(70_000).collect())];
    for (path, content) in &files {
        check!(kept.create(path, content.clone()).await?, "{path} is created");
    }
    drop((opened, kept));
    let (_opened, vault) = vault(fixture).await?;
    for (path, content) in files {
        check!(vault.load(path).await? == Some(content), "{path} is loaded");
    }
    check_eq!(vault.load("deep/er").await?, None, "a folder");
    check_eq!(vault.load("nothing").await?, None, "what was not created");
    Ok(())
}

async fn folders_tell_all_names(fixture: &Fixture) -> Verdict {
    let (_opened, vault) = vault(fixture).await?;
    check_eq!(vault.list("a").await?, Vec::<String>::new(), "a folder that is not there");
    for path in ["a/2.x", "a/10.x", "a/b/c.x", "a/b/d/e.x", "ab/other.x", "a-b.x"] {
        vault.create(path, b"x".to_vec()).await?;
    }
    check_eq!(vault.list("a").await?, ["10.x", "2.x", "b"], "names of a");
    check_eq!(vault.list("a/b").await?, ["c.x", "d"], "names of a/b");
    let many: Vec<String> = (0..1_100).map(|n| format!("{n:04}")).collect();
    for part in many.chunks(50) {
        let paths: Vec<String> = part.iter().map(|name| format!("many/{name}")).collect();
        let creating = paths.iter().map(|path| vault.create(path, b"x".to_vec()));
        for created in futures::future::join_all(creating).await {
            check!(created?, "a file is created");
        }
    }
    check_eq!(vault.list("many").await?, many, "more names than one page has");
    Ok(())
}
