//! Scans: every record once, in the order of the keys, with an honest position.

use std::sync::Arc;

use rand::seq::SliceRandom;
use unisono_core::slice::Slices;
use unisono_core::{Entity, Field, FieldType, Key, Position, Role, Uuid, Version};
use unisono_testkit::{Generator, Sample};

use crate::cases::cases;
use crate::fixture::{Feed, Fixture, Opened, Stop, Verdict, check, check_eq};

cases! {
    "scan-1" scan_is_ordered "a scan visits each record once, in the order of keys of every type";
    "scan-1-limit" scan_keeps_its_limit "pages end where asked, after any key, there or not";
    "scan-2" scan_names_its_position "a scan names the position of its snapshot";
    "held-1" what_is_held_is_what_a_scan_finds "records by key, as the source tells them for a comparison, are those of a scan";
    "digests-1" digests_are_those_of_a_scan "the sums of versions, by slices, are those of the records that a scan finds";
    "versions-1" versions_are_those_of_a_scan "keys and versions are listed of the asked slices, and of no others";
}

fn keys(ty: &FieldType) -> Vec<Key> {
    match ty {
        FieldType::Integer => {
            let numbers = [
                i64::MIN,
                -9_007_199_254_740_993,
                -10,
                -9,
                -1,
                0,
                1,
                2,
                10,
                100,
                9_007_199_254_740_993,
                i64::MAX,
            ];
            numbers.into_iter().map(Key::Integer).collect()
        }
        FieldType::Uuid => {
            let numbers = [0, 1, 255, 256, 1 << 64, (1 << 127) - 1, 1 << 127, u128::MAX];
            numbers.into_iter().map(|n| Key::Uuid(Uuid::from_u128(n))).collect()
        }
        _ => {
            let long = "k".repeat(Key::BYTES_MAX);
            let texts = [
                "\u{0}",
                "\u{0}a",
                " ",
                "%",
                "-",
                ".",
                "..",
                "/",
                "0",
                "10",
                "2",
                "A",
                "B",
                "\\",
                "_",
                "a",
                "a\u{0}",
                "a b",
                "a/b",
                "aa",
                "b",
                "con",
                "e\u{301}",
                "k",
                &long,
                "ß",
                "é",
                "\u{e000}",
                "\u{ffff}",
                "\u{1f600}",
            ];
            texts.into_iter().map(|t| Key::String(t.into())).collect()
        }
    }
}

async fn scan_is_ordered(fixture: &Fixture) -> Verdict {
    for role in fixture.holding_roles() {
        for ty in [FieldType::Integer, FieldType::String, FieldType::Uuid] {
            let fixture = Fixture::new(&fixture.kind)?;
            let fields = vec![Field::new("id", ty.clone()), Field::new("name", FieldType::String)];
            let entity = Arc::new(Entity::new("thing", "id", fields)?);
            let mut g = Generator::new(1);
            let mut records: Vec<_> = keys(&ty).iter().map(|k| g.record(&entity, k)).collect();
            records.shuffle(&mut g.rng);
            let opened = fixture.holding(role, &entity, &records).await?;
            opened.auditor()?;
            let mut expected = keys(&ty);
            expected.sort();
            let found: Vec<_> =
                opened.everything(&entity).await?.into_iter().map(|s| s.key).collect();
            check_eq!(found, expected, "scan of {ty} keys as {}", role.as_str());
            let opened = fixture.reopen(opened, role, &[&entity]).await?;
            let found: Vec<_> =
                opened.everything(&entity).await?.into_iter().map(|s| s.key).collect();
            check_eq!(found, expected, "scan of {ty} keys as {} after reopening", role.as_str());
        }
    }
    Ok(())
}

async fn scan_keeps_its_limit(fixture: &Fixture) -> Verdict {
    let entity = Sample::product();
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let records: Vec<_> = (1..8).map(Sample::product_record).collect();
        let opened = fixture.holding(role, &entity, &records).await?;
        let auditor = opened.auditor()?;
        for (after, limit, expected, end) in [
            (None, 3, vec!["p1", "p2", "p3"], false),
            (None, 100, vec!["p1", "p2", "p3", "p4", "p5", "p6", "p7"], true),
            (Some("p3"), 2, vec!["p4", "p5"], false),
            (Some("p35"), 2, vec!["p4", "p5"], false),
            (Some("p5"), 9, vec!["p6", "p7"], true),
            (Some("p7"), 9, vec![], true),
        ] {
            let page = auditor.scan(&entity, after.map(Sample::key).as_ref(), limit).await?.value;
            let found: Vec<_> = page.records.iter().map(|s| s.key.to_string()).collect();
            check_eq!(found, expected, "after {after:?}, limit {limit}");
            check_eq!(page.end, end, "end after {after:?}, limit {limit}");
        }
    }
    Ok(())
}

async fn scan_names_its_position(fixture: &Fixture) -> Verdict {
    let entity = Sample::product();
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let records: Vec<_> = (0..5).map(Sample::product_record).collect();
        let opened = fixture.holding(role, &entity, &records).await?;
        let page = opened.auditor()?.scan(&entity, None, 10).await?;
        check_eq!(page.position.as_u64(), 5, "position of a scan as {}", role.as_str());
        for (n, stored) in page.value.records.iter().enumerate() {
            check_eq!(stored.version.as_u64(), n as u64 + 1, "version of {}", stored.key);
        }
        if role == Role::Follower {
            // A change that is not yet covered by the checkpoint must not raise the position.
            let mut feed = Feed::new(&entity);
            for record in records {
                feed.changes.put(&entity, record);
            }
            let ahead = feed.changes.put(&entity, Sample::product_record(9));
            opened.follower()?.apply(feed.batch(&[ahead])).await?;
            let page = opened.auditor()?.scan(&entity, None, 10).await?;
            check!(
                page.position.as_u64() <= 5,
                "position {} is ahead of the checkpoint",
                page.position
            );
        }
    }
    Ok(())
}

/// Positions far above: of another generation.
const FAR: u64 = (3 << 48) + 70_000;

/// Sources that hold records of several slices; the follower has a deletion behind it, too, and versions of two
/// generations.
async fn spread(fixture: &Fixture, role: Role) -> Result<(Opened, Arc<Entity>), Stop> {
    let ty = if role == Role::Truth { FieldType::Integer } else { FieldType::String };
    let fields = vec![Field::new("id", ty.clone()), Field::new("name", FieldType::String)];
    let entity = Arc::new(Entity::new("thing", "id", fields)?);
    let mut g = Generator::new(1);
    let keys = |n: i64| match ty {
        FieldType::Integer => Key::Integer(n),
        _ => Key::String(format!("k{n}").into()),
    };
    let records: Vec<_> = (0..70).map(|n| g.record(&entity, &keys(n))).collect();
    let opened = fixture.holding(role, &entity, &records).await?;
    opened.auditor()?;
    if role == Role::Follower {
        let mut feed = Feed::new(&entity);
        for record in &records {
            feed.changes.put(&entity, record.clone());
        }
        let deleted = feed.changes.delete(&entity, &keys(3));
        let mut far = vec![deleted];
        for n in 5..9 {
            let mut change = (*feed.changes.put(&entity, g.record(&entity, &keys(n)))).clone();
            change.position = Position::new(FAR + n as u64 * 40)?;
            far.push(change.into());
        }
        opened.follower()?.apply(feed.batch(&far)).await?;
    }
    Ok((opened, entity))
}

async fn digests_are_those_of_a_scan(fixture: &Fixture) -> Verdict {
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let (opened, entity) = spread(&fixture, role).await?;
        let found = opened.everything(&entity).await?;
        for head in [0, 1 << 19, FAR] {
            let slices = Slices::of(Position::new(head)?);
            let expected = slices.digests(found.iter().map(|stored| stored.version));
            let digests = opened.auditor()?.digests(&entity, slices).await?;
            check_eq!(digests.value, expected, "as {}, {} wide", role.as_str(), slices.width());
            check!(digests.position.as_u64() <= 70, "position {}", digests.position);
        }
    }
    Ok(())
}

async fn versions_are_those_of_a_scan(fixture: &Fixture) -> Verdict {
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let (opened, entity) = spread(&fixture, role).await?;
        let slices = Slices::of(Position::ZERO);
        let far = slices.of_version(Position::new(FAR + 240)?);
        let found = opened.everything(&entity).await?;
        for among in [vec![0], vec![1, 2, far], vec![3, far + 1_000]] {
            let mut expected: Vec<(Key, Version)> =
                found.iter().map(|stored| (stored.key.clone(), stored.version)).collect();
            expected.retain(|(_, version)| among.contains(&slices.of_version(*version)));
            expected.sort();
            let mut listed = opened.auditor()?.versions(&entity, slices, &among).await?.value;
            listed.sort();
            listed.dedup();
            check_eq!(listed, expected, "as {} of {among:?}", role.as_str());
        }
    }
    Ok(())
}

async fn what_is_held_is_what_a_scan_finds(fixture: &Fixture) -> Verdict {
    let entity = Sample::product();
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let records: Vec<_> = (1..8).map(Sample::product_record).collect();
        let opened = fixture.holding(role, &entity, &records).await?;
        let mut keys: Vec<_> =
            records.iter().map(|r| Ok(entity.key_of(r)?)).collect::<Result<_, Stop>>()?;
        keys.insert(3, Sample::key("none"));
        let Some(held) = opened.auditor()?.held(&entity, &keys).await? else {
            // Then a read by key is asked, which the cases of readers are about.
            continue;
        };
        let scanned = opened.everything(&entity).await?;
        let expected: Vec<_> =
            keys.iter().map(|key| scanned.iter().find(|s| s.key == *key).cloned()).collect();
        check_eq!(held.value, expected, "as {}", role.as_str());
        check!(held.position > Position::ZERO, "it names no position");
    }
    Ok(())
}
