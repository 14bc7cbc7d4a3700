use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fixtures;
use crate::query::ast::Like;
use crate::query::parse;

/// Each line: the test, and which of the records satisfy it.
#[test]
fn tests_mean_what_they_say() {
    let entity = fixtures::entity();
    let a = json!({"id": "a", "status": "paid", "quantity": 5, "amount": "10.00", "ratio": -0.0, "paid": true,
        "title": "Red 50% off", "labels": ["x", "y"], "tags": {"n": 1, "s": "blue", "l": [1, "z"], "o": {"p": true}},
        "items": [{"product_id": "p", "quantity": 1}, {"product_id": "q", "quantity": 9}]});
    let b = json!({"id": "b", "status": "", "quantity": -5, "amount": "9.99", "ratio": 2.5, "paid": false,
        "title": "a_b", "labels": [], "tags": {"n": "1", "s": null, "l": "blues"}, "items": []});
    let c = json!({"id": "c", "items": [{"product_id": null}, {"quantity": 1}]});
    let records = [a, b, c].map(|json| fixtures::stored(&entity, &json));
    for (field, test, expected) in [
        ("status", "eq.paid", "a"),
        ("status", "ne.paid", "b"),
        ("status", "not.eq.paid", "bc"),
        ("status", "eq.", "b"),
        ("status", "is.null", "c"),
        ("status", "is.not_null", "ab"),
        ("status", "not.is.null", "ab"),
        ("status", "in.(paid,sent)", "a"),
        ("status", "not.in.(paid,sent)", "bc"),
        ("quantity", "lt.5", "b"),
        ("quantity", "lte.5", "ab"),
        ("quantity", "gt.-5", "a"),
        ("quantity", "gte.-5", "ab"),
        ("quantity", "between.(-5,5)", "ab"),
        ("quantity", "between.(5,-5)", ""),
        ("amount", "gt.9.99", "a"),
        ("amount", "eq.10", "a"),
        ("ratio", "eq.0", "a"),
        ("ratio", "lt.0", ""),
        ("ratio", "in.(0,1)", "a"),
        ("paid", "eq.false", "b"),
        ("paid", "gt.false", "a"),
        ("title", "like.Red%", "a"),
        ("title", "like.%50\\%%", "a"),
        ("title", "like.a\\_b", "b"),
        ("title", "like.%", "ab"),
        ("title", "not.like.%", "c"),
        ("title", "prefix.Red 5", "a"),
        ("title", "prefix.red", ""),
        ("title", "contains.50%", "a"),
        ("title", "contains.", "ab"),
        ("labels", "contains.x", "a"),
        ("labels", "not.contains.x", "bc"),
        ("labels", "is.null", "c"),
        ("items", "is.null", ""),
        ("items.product_id", "eq.q", "a"),
        ("items.product_id", "ne.q", "a"),
        ("items.product_id", "not.eq.q", "bc"),
        ("items.product_id", "is.null", "bc"),
        ("items.quantity", "between.(2,10)", "a"),
        ("items.quantity", "eq.1", "ac"),
        ("items.price", "is.null", "abc"),
        ("tags", "is.null", "c"),
        ("tags.n", "eq.1", "a"),
        ("tags.n", "eq.1.0", "a"),
        ("tags.n", "eq.\"1\"", "b"),
        ("tags.n", "ne.1", "b"),
        ("tags.n", "lt.2", "a"),
        ("tags.n", "between.(0,2)", "a"),
        ("tags.n", "in.(\"\\\"1\\\"\",7)", "b"),
        ("tags.n", "is.null", "c"),
        ("tags.s", "is.null", "bc"),
        ("tags.s", "ne.x", "a"),
        ("tags.s", "prefix.bl", "a"),
        ("tags.s", "like.%ue", "a"),
        ("tags.l", "contains.z", "a"),
        ("tags.l", "contains.1", "a"),
        ("tags.l", "contains.\"1\"", ""),
        ("tags.l", "contains.blue", "b"),
        ("tags.l", "eq.1", ""),
        ("tags.l", "ne.1", "ab"),
        ("tags.l.0", "eq.1", "a"),
        ("tags.l.2", "is.null", "abc"),
        ("tags.o.p", "eq.true", "a"),
        ("tags.o.p.q", "is.null", "abc"),
    ] {
        let parameters = [(field.to_owned(), test.to_owned())];
        let filter = parse::url(&entity, &parameters)
            .unwrap_or_else(|e| panic!("{field}={test}: {e:?}"))
            .filter;
        let found: String = records
            .iter()
            .filter(|stored| matches(&entity, &filter, &stored.record))
            .map(|stored| stored.key.to_string())
            .collect();
        assert_eq!(found, expected, "{field}={test}");
    }
}

#[test]
fn connectives_follow_two_valued_logic() {
    let entity = fixtures::entity();
    let record = fixtures::record(&entity, &json!({"id": "a", "quantity": 1}));
    let one = || Filter::Compare(Path::whole(4), Comparison::Eq, Value::Integer(1));
    let unknown = || Filter::Compare(Path::whole(3), Comparison::Eq, Value::String("x".into()));
    for (filter, expected) in [
        (Filter::All, true),
        (Filter::And(vec![]), true),
        (Filter::Or(vec![]), false),
        (Filter::And(vec![one(), unknown()]), false),
        (Filter::Or(vec![unknown(), one()]), true),
        (Filter::Not(Box::new(unknown())), true),
        (Filter::Not(Box::new(Filter::Not(Box::new(one())))), true),
        (Filter::Not(Box::new(Filter::Or(vec![unknown(), one()]))), false),
    ] {
        assert_eq!(matches(&entity, &filter, &record), expected, "{filter:?}");
    }
}

#[test]
fn patterns_match_whole_texts_by_characters() {
    for (pattern, text, expected) in [
        ("", "", true),
        ("", "a", false),
        ("%", "", true),
        ("_", "", false),
        ("_", "\u{1f600}", true),
        ("_", "e\u{301}", false),
        ("__", "e\u{301}", true),
        ("a%", "abc", true),
        ("%c", "abc", true),
        ("a%c", "ac", true),
        ("a_c", "ac", false),
        ("A%", "abc", false),
        ("%b%", "abc", true),
        ("%%%", "abc", true),
        ("%_%_%", "a", false),
        ("%ab%ab", "abab", true),
        ("%aab", "aaaaab", true),
        ("a%b%c", "a-b-b-c-", false),
        ("100\\%", "100%", true),
        ("100\\%", "1000", false),
        ("\\_", "_", true),
        ("\\_", "a", false),
        ("\\\\", "\\", true),
        ("\\a", "a", true),
        ("a\\", "a\\", true),
        ("%\n%", "x\ny", true),
        (".*[", ".*[", true),
    ] {
        assert_eq!(Like(pattern.to_owned()).matches(text), expected, "{pattern:?} {text:?}");
    }
    let nasty = format!("{}b", "a%".repeat(30));
    assert!(!Like(nasty).matches(&"a".repeat(5000)), "no exponential search");
}

proptest! {
    #[test]
    fn patterns_agree_with_a_plain_recursion(pattern in "[ab%_\\\\]{0,7}", text in "[ab%_\\\\]{0,7}") {
        fn plain(p: &[char], t: &[char]) -> bool {
            match (p, t) {
                ([], t) => t.is_empty(),
                (['%', p @ ..], t) => (0..=t.len()).any(|n| plain(p, &t[n..])),
                (['_', p @ ..], [_, t @ ..]) => plain(p, t),
                (['\\', c, p @ ..], [d, t @ ..]) => c == d && plain(p, t),
                ([c, p @ ..], [d, t @ ..]) => *c != '_' && c == d && plain(p, t),
                _ => false,
            }
        }
        let (p, t): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
        prop_assert_eq!(Like(pattern).matches(&text), plain(&p, &t));
    }
}

#[test]
fn values_at_a_path_leave_nulls_out() {
    let entity = fixtures::entity();
    let record = fixtures::record(
        &entity,
        &json!({"id": "a", "tags": {"n": 1, "z": null}, "items": [{"quantity": 1}, {}, {"quantity": 3}]}),
    );
    for (path, expected) in [
        ("id", vec![Value::String("a".into())]),
        ("status", vec![]),
        ("items.quantity", vec![Value::Integer(1), Value::Integer(3)]),
        ("items.price", vec![]),
        ("tags.n", vec![Value::Json(json!(1))]),
        ("tags.z", vec![]),
        ("tags.nope", vec![]),
    ] {
        let found = values(&parse::path(&entity, path).unwrap(), &record);
        assert_eq!(found.into_iter().map(Cow::into_owned).collect::<Vec<_>>(), expected, "{path}");
    }
}

#[test]
fn a_page_has_the_facets_of_all_matches_and_the_highlights_of_its_hits() {
    let entity = fixtures::entity();
    let records: Vec<_> = (0..30)
        .map(|n| {
            let status = ["x", "y", "y"].get(n % 4);
            let title = if n < 20 { "red" } else { "blue" };
            fixtures::stored(
                &entity,
                &json!({"id": format!("{n:02}"), "status": status, "title": title, "quantity": n}),
            )
        })
        .collect();
    let mut query = Query { search: Some("red".into()), highlight: true, limit: 2, ..Query::all() };
    query.facets = vec![entity.index_of("status").unwrap(), entity.index_of("quantity").unwrap()];
    let page = page(&entity, &query, records.iter()).unwrap();
    assert_eq!(page.facets[0], [(Value::String("y".into()), 10), (Value::String("x".into()), 5)]);
    assert_eq!(page.facets[1].len(), Query::FACET_VALUES.min(20));
    assert_eq!(page.facets[1][0], (Value::Integer(0), 1), "ties by value");
    assert_eq!(page.hits.len(), 2);
    assert_eq!(page.hits[0].highlights["title"], "<mark>red</mark>");
    assert_eq!(page.hits[0].score, Some(1.0));
    assert_eq!(count(&entity, &Filter::All, Some("red"), records.iter()).unwrap(), 20);
    assert_eq!(count(&entity, &Filter::All, None, records.iter()).unwrap(), 30);
}

#[test]
fn by_relevance_the_best_come_first_and_ties_by_key() {
    let entity = fixtures::entity();
    let records: Vec<_> = [("c", "red"), ("a", "blue"), ("d", "red red"), ("b", "red")]
        .iter()
        .map(|(id, title)| fixtures::stored(&entity, &json!({"id": id, "title": title})))
        .collect();
    let mut query = Query { search: Some("red".into()), limit: 1, ..Query::all() };
    let mut seen = String::new();
    loop {
        let page = page(&entity, &query, records.iter()).unwrap();
        page.hits.iter().for_each(|hit| seen.push_str(&hit.stored.key.to_string()));
        let Some(next) = page.next else { break };
        query.cursor =
            Some(Cursor::decode(&entity, &query, &next.encode(&entity, &query)).unwrap());
    }
    assert_eq!(seen, "dbc");
}
