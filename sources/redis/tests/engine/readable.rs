//! What other programs see: records under the template, in each format; and the options that are refused.

use std::collections::BTreeMap;

use serde_json::json;
use unisono_core::{ErrorKind, Role};
use unisono_testkit::{Changes, Sample};

use crate::common::{ask, batch, binding, engine, open, plain};

#[tokio::test]
async fn a_plain_client_reads_every_format() {
    let entity = Sample::order();
    let record = Sample::record(
        &entity,
        &json!({"id": "42", "status": "paid", "total_amount": "12.50", "user_id": "",
            "items": [{"product_id": "p1", "quantity": 2}]}),
    );
    for format in ["json", "hash", "packed"] {
        let options = engine("source.toml");
        let source = open(&options).await.unwrap();
        let given = [("format", format), ("key_template", "o:{id}:x")];
        source.prepare(&[binding(&entity, Role::Follower, &given)]).await.unwrap();
        let follower = source.clone().follower().unwrap();
        let mut changes = Changes::new();
        let first = changes.put(
            &entity,
            Sample::record(
                &entity,
                &json!({"id": "42", "created_at": "2026-01-02T03:04:05.678901Z"}),
            ),
        );
        follower.apply(batch(&entity, &changes, &[first], 0, 1)).await.unwrap();
        let change = changes.put(&entity, record.clone());
        follower.apply(batch(&entity, &changes, &[change], 1, 2)).await.unwrap();
        let mut client = plain(&options).await;
        let key = format!("{}:o:42:x", options.text("prefix").unwrap());
        match format {
            "hash" => {
                let mut hash: BTreeMap<String, String> =
                    ask(&mut client, &[b"HGETALL", key.as_bytes()]).await;
                let items: serde_json::Value =
                    serde_json::from_str(&hash.remove("items").unwrap()).unwrap();
                assert_eq!(items[0]["quantity"], 2);
                let expected =
                    [("id", "42"), ("status", "paid"), ("total_amount", "12.50"), ("user_id", "")];
                let expected: BTreeMap<_, _> =
                    expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
                assert_eq!(hash, expected, "a field of the state before must be gone");
            }
            _ => {
                let bytes: Vec<u8> = ask(&mut client, &[b"GET", key.as_bytes()]).await;
                let (version, text) = bytes.split_at(if format == "packed" { 8 } else { 0 });
                let shown: serde_json::Value = serde_json::from_slice(text).unwrap();
                assert_eq!(shown["total_amount"], "12.50");
                assert_eq!(shown["items"][0]["quantity"], 2);
                assert_eq!(
                    shown.get("created_at").is_some(),
                    format == "json",
                    "nulls of {format}"
                );
                if format == "packed" {
                    assert_eq!(version, 2_u64.to_be_bytes());
                }
            }
        }
        let deleted = changes.delete(&entity, &Sample::key("42"));
        follower.apply(batch(&entity, &changes, &[deleted], 2, 3)).await.unwrap();
        assert_eq!(ask::<i64>(&mut client, &[b"EXISTS", key.as_bytes()]).await, 0, "{format}");
    }
}

#[tokio::test]
async fn what_somebody_broke_by_hand_is_shown_and_repaired() {
    let entity = Sample::product();
    for format in ["json", "hash", "packed"] {
        let options = engine("source.toml");
        let source = open(&options).await.unwrap();
        source.prepare(&[binding(&entity, Role::Follower, &[("format", format)])]).await.unwrap();
        let follower = source.clone().follower().unwrap();
        let mut changes = Changes::new();
        let all: Vec<_> = (0..4).map(|n| changes.put(&entity, Sample::product_record(n))).collect();
        follower.apply(batch(&entity, &changes, &all, 0, 4)).await.unwrap();
        let mut client = plain(&options).await;
        let key = |id: &str| format!("{}:product:{id}", options.text("prefix").unwrap());
        // Garbage, another type, and nothing.
        let garbage: &[&[u8]] = match format {
            "hash" => &[b"HSET", b"", b"stock", b"many"],
            _ => &[b"SET", b"", b"12345678{not json"],
        };
        let mut garbage = garbage.to_vec();
        let broken = key("p0");
        garbage[1] = broken.as_bytes();
        let _: redis::Value = ask(&mut client, &garbage).await;
        let _: i64 = ask(&mut client, &[b"DEL", key("p1").as_bytes(), key("p2").as_bytes()]).await;
        let _: i64 = ask(&mut client, &[b"LPUSH", key("p1").as_bytes(), b"x"]).await;
        let auditor = source.clone().auditor().unwrap();
        let page = auditor.scan(&entity, None, 10).await.unwrap();
        let keys: Vec<_> = page.value.records.iter().map(|s| s.key.to_string()).collect();
        assert_eq!(
            (keys, page.value.end),
            (vec!["p0".to_owned(), "p3".to_owned()], true),
            "{format}"
        );
        assert_ne!(page.value.records[0].record, all[0].image.clone().unwrap(), "{format}");
        let reader = source.clone().reader().unwrap();
        let error = reader.get(&entity, &[Sample::key("p0")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{format}");
        let mut copies = batch(&entity, &changes, &all, 0, 4);
        (copies.advance, copies.copied) = (None, true);
        follower.apply(copies).await.unwrap();
        let page = auditor.scan(&entity, None, 10).await.unwrap();
        let records: Vec<_> = page.value.records.iter().map(|s| Some(s.record.clone())).collect();
        let expected: Vec<_> = all.iter().map(|c| c.image.clone()).collect();
        assert_eq!(records, expected, "{format}: repaired");
    }
}

#[tokio::test]
async fn keys_that_could_collide_and_other_ways_of_keeping_are_refused() {
    let options = engine("source.toml");
    let source = open(&options).await.unwrap();
    let (product, order) = (Sample::product(), Sample::order());
    let follow = |entity, given: &[(&str, &str)]| binding(entity, Role::Follower, given);
    source.prepare(&[follow(&product, &[])]).await.unwrap();
    let error = source.prepare(&[follow(&order, &[("key_template", "product:{id}")])]).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidConfig);
    // While there is nothing, any format will do; afterwards the kept one.
    source.prepare(&[follow(&product, &[("format", "hash")])]).await.unwrap();
    let mut changes = Changes::new();
    let change = changes.put(&product, Sample::product_record(1));
    let follower = source.clone().follower().unwrap();
    follower.apply(batch(&product, &changes, &[change], 0, 1)).await.unwrap();
    for given in [("format", "json"), ("key_template", "p:{id}")] {
        let error = source.prepare(&[follow(&product, &[given])]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{given:?}");
        assert!(error.hint_text().is_some());
    }
}

/// Deletions are remembered until the checkpoint has passed them, and then leave nothing behind.
#[tokio::test]
async fn deletions_are_forgotten_in_time() {
    let entity = Sample::product();
    let options = engine("source.toml");
    let source = open(&options).await.unwrap();
    source.prepare(&[binding(&entity, Role::Follower, &[])]).await.unwrap();
    let follower = source.clone().follower().unwrap();
    let mut client = plain(&options).await;
    let mut changes = Changes::new();
    let put = changes.put(&entity, Sample::product_record(1));
    let delete = changes.delete(&entity, &put.key);
    let again = changes.put(&entity, Sample::product_record(1));
    let gone = changes.delete(&entity, &Sample::key("p2"));
    let last = changes.put(&entity, Sample::product_record(3));
    let place = format!("{}:unisono:{{product.0}}", options.text("prefix").unwrap());
    let mut seen = Vec::new();
    // The record comes back while its deletion is still remembered: by a batch that moves no checkpoint.
    let steps = [(0, 1), (1, 2), (2, 2), (2, 4), (4, 5), (5, 6)];
    for ((from, to), change) in
        steps.into_iter().zip([put, delete, again, gone, last.clone(), last])
    {
        let mut next = batch(&entity, &changes, &[change], from, to);
        next.advance = next.advance.filter(|_| from < to);
        follower.apply(next).await.unwrap();
        let mut counts = [0_i64; 3];
        for (count, (command, name)) in
            counts.iter_mut().zip([("HLEN", "ledger"), ("ZCARD", "index"), ("ZCARD", "deletions")])
        {
            let key = format!("{place}:{name}");
            *count = ask(&mut client, &[command.as_bytes(), key.as_bytes()]).await;
        }
        seen.push(counts);
    }
    // Versions and checkpoint; records; remembered deletions. One is let go by the batch after the one that passed it.
    let expected = [[2, 1, 0], [2, 0, 1], [2, 1, 1], [3, 1, 1], [3, 2, 0], [3, 2, 0]];
    assert_eq!(seen, expected);
}
