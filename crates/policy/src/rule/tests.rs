use std::sync::Arc;

use serde_json::json;
use unisono_core::{ErrorKind, Field, FieldType};

use super::*;

fn entity() -> Entity {
    let lines: Arc<[Field]> = Arc::new([
        Field::new("product_id", FieldType::String),
        Field::new("quantity", FieldType::Integer),
        Field::new("amount", FieldType::Decimal { precision: 12, scale: 2 }),
    ]);
    let fields = vec![
        Field::new("id", FieldType::String),
        Field::new("name", FieldType::Text),
        Field::new("stock", FieldType::Integer),
        Field::new("price", FieldType::Decimal { precision: 12, scale: 2 }),
        Field::new("big", FieldType::Decimal { precision: 28, scale: 6 }),
        Field::new("weight", FieldType::Float),
        Field::new("active", FieldType::Boolean),
        Field::new("day", FieldType::Date),
        Field::new("made", FieldType::Timestamp { precision: 6 }),
        Field::new("owner", FieldType::Uuid),
        Field::new("raw", FieldType::Bytes),
        Field::new("tags", FieldType::List(Box::new(FieldType::String))),
        Field::new("lines", FieldType::Objects(lines)),
        Field::new("extra", FieldType::Json),
        Field::new("nothing", FieldType::Integer),
    ];
    Entity::new("product", "id", fields).unwrap()
}

fn record(entity: &Entity) -> Record {
    let json = json!({
        "id": "p1", "name": "Shelf, oak", "stock": 7, "price": "10.10",
        "big": "9007199254740993.000001", "weight": 0.1, "active": true, "day": "2026-02-28",
        "made": "2026-01-01T12:00:00.5Z", "owner": "67e55044-10b1-426f-9247-bb680e5fe0c8", "raw": "AAE=",
        "tags": ["new", "wood"],
        "lines": [
            {"product_id": "a", "quantity": 1, "amount": "5.00"},
            {"product_id": "b", "quantity": 4, "amount": null}
        ],
        "extra": {"colour": "red", "size": {"w": 3, "h": 2.5}, "codes": [1, "x", null], "gone": null}
    });
    unisono_core::json::parse(entity, &json).unwrap()
}

#[test]
fn what_sources_hold_encrypted_is_refused_in_every_spelling() {
    let fields = vec![
        Field::new("id", FieldType::String),
        Field::new("name", FieldType::String),
        Field::new("data", FieldType::Json),
    ];
    let entity = Entity::new("person", "id", fields).unwrap();
    let entity = entity.with_personal(&["name", "data.address"], "id").unwrap();
    for text in [
        "record.name == 'Kim'",
        "has(record.name)",
        "record.data.address == 'x'",
        "record.data['address'] == 'x'",
        "record.data.address.city == 'x'",
        "record.id == 'a' && record.name.startsWith('K')",
    ] {
        let refused = Rule::compile(&entity, text).err().unwrap();
        assert!(refused.message().contains("is personal"), "{text}: {refused}");
    }
    assert!(Rule::compile(&entity, "record.data.kind == 'x' && record.id != 'y'").is_ok());
}

#[test]
fn conditions_that_hold() {
    let entity = entity();
    let record = record(&entity);
    for text in [
        "true",
        "record.stock > 6 && record.stock < 8",
        "record.price == 10.10",
        "record.price >= 10.1 && record.price < 10.11",
        "record.price * 3 == 30.30",
        "record.price * record.stock == 70.7",
        "record.big > 9007199254740993",
        "record.big == decimal(\"9007199254740993.000001\")",
        "record.big < decimal(\"9007199254740993.000002\")",
        "record.weight == 0.1",
        "record.weight < 1 && record.price > record.weight",
        "record.stock / 2 == 3 && record.stock % 2 == 1",
        "-record.stock == -7",
        "record.active",
        "!(record.stock == 8)",
        "record.name.startsWith(\"Shelf\") && record.name.endsWith('oak') && record.name.contains(\", \")",
        "size(record.name) == 10 && record.name.size() == 10",
        "record.day == \"2026-02-28\" && record.day < date(\"2026-03-01\")",
        "record.made > timestamp(\"2026-01-01T12:00:00Z\") && record.made <= \"2026-01-01T12:00:00.5Z\"",
        "record.made - duration('12h') == \"2026-01-01T00:00:00.5Z\"",
        "duration('1d') + record.made == timestamp(\"2026-01-02T12:00:00.5Z\")",
        "record.made - timestamp(\"2026-01-01T00:00:00Z\") > duration('12h')",
        "record.owner == \"67E55044-10B1-426F-9247-BB680E5FE0C8\"",
        "record.owner in [\"67e55044-10b1-426f-9247-bb680e5fe0c8\"]",
        "record.raw == b'\\x00\\x01'",
        "\"wood\" in record.tags && !(\"steel\" in record.tags) && record.tags[0] == \"new\"",
        "record.tags.all(t, size(t) > 2)",
        "record.stock in [5, 6, 7] && !(record.name in ['x'])",
        "record.lines.exists(l, l.quantity > 3)",
        "record.lines.exists(l, l.amount == 5)",
        "record.lines.exists(l, record.tags.exists(t, l.product_id == 'b' && t == 'wood'))",
        "record.lines[1].product_id == 'b' && size(record.lines) == 2",
        "record.extra.colour == \"red\" && record.extra[\"size\"].w == 3 && record.extra.size.h > 2",
        "record.extra.codes[0] == 1 && 'x' in record.extra.codes && 'colour' in record.extra",
        "has(record.stock) && !has(record.nothing) && has(record.extra.colour)",
        "!has(record.extra.gone) && !has(record.extra.absent) && !has(record.extra.absent.deeper)",
        "record.nothing == null && record.stock != null && record.nothing != 3",
        "record.stock > 5 ? record.active : record.nothing > 1",
        "record.nothing > 3 || record.stock == 7",
        "record.stock == 7 || record.nothing > 3",
        "!(record.nothing > 3 && record.stock == 8)",
    ] {
        let rule = Rule::compile(&entity, text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(rule.holds(&entity, &record), "{text}");
    }
}

#[test]
fn conditions_that_do_not_hold_or_cannot_be_decided() {
    let entity = entity();
    let record = record(&entity);
    for text in [
        "false",
        "record.stock > 7",
        "record.price == 10.1000001",
        "record.big == 9007199254740992.0",
        "record.nothing > 3",
        "!(record.nothing > 3)",
        "record.nothing > 3 && true",
        "record.nothing + 1 == 1",
        "record.stock / 0 == 1",
        "record.stock * 9223372036854775807 > 0",
        "record.extra.absent == 1",
        "record.extra.colour > 3",
        "record.extra.colour",
        "record.extra.codes[9] == 1",
        "record.lines.all(l, l.amount > 1)",
        "record.tags.exists(t, t == 'steel')",
        "record.nothing in [1, 2]",
        "timestamp(\"0001-01-01T00:00:00Z\") - duration('36600d') < record.made",
    ] {
        let rule = Rule::compile(&entity, text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(!rule.holds(&entity, &record), "{text}");
    }
}

#[test]
fn conditions_that_are_refused_say_what_and_why() {
    let entity = entity();
    for (text, message, hint) in [
        ("", "not valid CEL", ""),
        ("record.stock >", "not valid CEL", ""),
        ("record.stock = 3", "not valid CEL", ""),
        ("stock > 3", "`stock` is not known", "did you mean `record.stock`?"),
        ("recrd.stock > 3", "`recrd` is not known", "conditions use `record`"),
        ("record.stok > 3", "`record.stok` is not declared", "did you mean `stock`?"),
        ("record.zzzzzz > 3", "`record.zzzzzz` is not declared", "declared are id, name"),
        ("has(record.stok)", "`record.stok` is not declared", "did you mean `stock`?"),
        (
            "record.lines.exists(l, l.quantty > 3)",
            "`quantty` is not declared",
            "did you mean `quantity`?",
        ),
        ("record.lines.quantity > 3", "`quantity` is looked for in a list", "list.exists"),
        ("record.stock", "a condition takes true or false, not a number", "compare it"),
        ("record", "`record` is used as a value", "name one of its fields"),
        ("record.stock > \"3\"", "`>` compares a number with text", "without quotes"),
        ("record.name == 3", "`==` compares text with a number", ""),
        ("record.stock && true", "`&&` takes true or false, not a number", ""),
        ("record.name + 'x' == 'y'", "arithmetic takes a number, not text", ""),
        ("record.tags < record.tags", "has no order", ""),
        ("record.day == \"2026-02-30\"", "is not a date", ""),
        ("record.made > timestamp(record.name)", "takes quoted text", ""),
        ("record.made > now", "`now` is not available here", "only the `where` of a cache"),
        ("record.made > now()", "`now` is not available here", "only the `where` of a cache"),
        ("record.made > duration('1h')", "`>` compares a timestamp with a duration", ""),
        ("record.made + 1 > record.made", "arithmetic takes a number, not a timestamp", ""),
        ("duration('1h') - record.made > record.made", "takes a number, not a duration", ""),
        ("record.made - duration('1 hour') > record.made", "\"1 hour\" is not a duration", "1h"),
        ("record.made - duration(record.name) > record.made", "takes quoted text", ""),
        (
            "record.name.startWith('x')",
            "the function `startWith` is not available",
            "did you mean `startsWith`?",
        ),
        ("record.tags.map(t, t) == record.tags", "only `exists` and `all`", ""),
        ("record.stock in record.name", "looks into a list, not text", ""),
        ("record.name in [1]", "`in` compares text with a number", ""),
        ("{'a': 1} == record.extra", "maps and messages", ""),
        ("record.price > decimal('x')", "is not a decimal", ""),
    ] {
        let error = Rule::compile(&entity, text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
        assert!(error.message().contains(message), "{text}: {error}");
        assert!(
            error.hint_text().unwrap_or_default().contains(hint),
            "{text}: {:?}",
            error.hint_text()
        );
    }
}

#[test]
fn a_rule_of_a_cache_knows_the_time() {
    let entity = entity();
    let record = record(&entity);
    let text = "record.made > now - duration('1h') || record.stock == 8";
    let rule = Rule::of_cache(&entity, text).unwrap();
    let at = |text: &str| rule.holds_at(&record, text.parse().unwrap());
    assert!(at("2026-01-01T12:30:00Z") && at("2026-01-01T13:00:00Z"));
    assert!(!at("2026-01-01T13:00:00.5Z"), "an hour old");
    let young = Rule::of_cache(&entity, "now - record.made < duration('60s')").unwrap();
    assert!(young.holds_at(&record, "2026-01-01T12:01:00Z".parse().unwrap()));
    assert!(!young.holds_at(&record, "2026-01-01T12:01:01Z".parse().unwrap()));
    let error = Rule::of_cache(&entity, "record.made > now()").unwrap_err();
    assert_eq!(error.hint_text(), Some("write it without parentheses"));
}

#[test]
fn long_and_deep_texts_are_refused_without_harm() {
    let entity = entity();
    let refused = |text: String| Rule::compile(&entity, &text).is_err();
    assert!(refused("x".repeat(Rule::BYTES_MAX + 1)));
    let many = format!("{}true{}", "(".repeat(2000), ")".repeat(2000));
    assert!(
        Rule::compile(&entity, &many).unwrap().holds(&entity, &record(&entity)),
        "parentheses are not depth"
    );
    assert!(refused("(".repeat(4096)));
    assert!(refused("[".repeat(4096)));
    assert!(refused("-".repeat(4000) + "1"));
    let even = "!".repeat(4000) + "true";
    assert!(
        Rule::compile(&entity, &even).unwrap().holds(&entity, &record(&entity)),
        "an even number of `!` is none"
    );
    assert!(refused(format!("1{} > 0", "+1".repeat(2000))));
    let chain = vec!["record.stock != 1"; 150].join(" && ");
    assert!(Rule::compile(&entity, &chain).unwrap().holds(&entity, &record(&entity)));
}

#[test]
fn the_text_is_kept() {
    let rule = Rule::compile(&entity(), "record.stock > 0").unwrap();
    assert_eq!(rule.text(), "record.stock > 0");
    assert_eq!(format!("{rule:?}"), "Rule(\"record.stock > 0\")");
}
