//! Which follower holds what, and who is asked: `partition`, `conditional`, `geographic`.

use crate::site::{FIELDS, SERVERS, Site};
use crate::{ids, order};

fn filtered(source: &str, rule: &str) -> String {
    format!("[[entities.order.followers]]\nsource = \"{source}\"\nwhere = \"{rule}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_by_type_has_each_record_where_its_type_belongs() {
    let parts = [("docs", "sale"), ("copy", "refund"), ("fast", "gift")];
    let followers =
        parts.map(|(source, kind)| filtered(source, &format!("record.kind == '{kind}'")));
    let entity = format!("strategy = \"partition\"\n{}", followers.concat());
    let site = Site::open(&SERVERS, &entity).await;
    for (n, id) in ids(60).iter().enumerate() {
        site.put(&order(id, n as u64)).await;
    }
    site.settled().await;
    for (source, kind) in parts {
        for (n, id) in ids(60).iter().enumerate() {
            let record = order(id, n as u64);
            let expected = (record["kind"] == kind).then_some(record);
            assert_eq!(site.held(source, id).await, expected, "{source} {id}");
        }
    }
    // Of another type it belongs to another one.
    let mut moved = order("o0000", 0);
    moved["kind"] = "gift".into();
    site.put(&moved).await;
    site.settled().await;
    assert_eq!(site.held("docs", "o0000").await, None);
    assert_eq!(site.held("fast", "o0000").await, Some(moved));
    // What is of no type is in the truth alone.
    let mut strange = order("strange", 0);
    strange["kind"] = "loan".into();
    site.put(&strange).await;
    site.settled().await;
    for (source, _) in parts {
        assert_eq!(site.held(source, "strange").await, None, "{source}");
    }
    assert_eq!(site.read("strange", &[]).await.unwrap(), (Some(strange), "main".into()));
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_decides_and_what_satisfies_none_is_in_the_default_target() {
    let entity = format!(
        "strategy = \"conditional\"\nack = \"all\"\n{}{}[[entities.order.followers]]\nsource = \"docs\"\ndefault = true\n",
        filtered("copy", "record.amount > 1000"),
        filtered("find", "record.amount > 1000 && record.country == 'fr'"),
    );
    let site = Site::open(&SERVERS, &entity).await;
    site.settled().await;
    let cases = [
        ("large-fr", Some("2000.00"), "fr", &["copy", "find"] as &[&str]),
        ("large-de", Some("1000.01"), "de", &["copy"]),
        ("small", Some("1000.00"), "fr", &["docs"]),
        // No condition can be decided.
        ("unknown", None, "fr", &["docs"]),
    ];
    let put = async |id: &str, amount: Option<&str>, country: &str| {
        let mut record = order(id, 1);
        record["amount"] = amount.into();
        record["country"] = country.into();
        site.put(&record).await;
        record
    };
    for (id, amount, country, targets) in cases {
        let record = put(id, amount, country).await;
        for source in ["copy", "find", "docs"] {
            let expected = targets.contains(&source).then(|| record.clone());
            assert_eq!(site.held(source, id).await, expected, "{source} {id}, when it is answered");
        }
    }
    // It goes over to the default target when it does not satisfy the condition any more, and back.
    for (amount, copy, docs) in [("3.00", false, true), ("5000.00", true, false)] {
        put("large-de", Some(amount), "de").await;
        site.settled().await;
        assert_eq!(site.held("copy", "large-de").await.is_some(), copy, "{amount}");
        assert_eq!(site.held("docs", "large-de").await.is_some(), docs, "{amount}");
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn near_sources_answer_and_what_may_not_leave_the_region_does_not() {
    let sources = [
        ("main", "postgres", ""),
        ("copy", "mysql", "region = \"eu\""),
        ("docs", "mongodb", "region = \"us\""),
        ("fast", "redis", "region = \"us\""),
    ];
    let entity = r#"
        [entities.order]
        truth = "main"
        strategy = "geographic"
        followers = [{ source = "docs" }, { source = "fast" }, { source = "copy" }]
        [[entities.order.residency]]
        region = "us"
        forbid = "record.country == 'de'"
    "#;
    let entity = format!("{entity}{FIELDS}");
    let site = Site::open_all(&sources, "region = \"eu\"", &entity).await;
    site.settled().await;
    let told = site.engine.status().await.entities.remove(0);
    assert_eq!(told.followers, ["copy: priority 1"], "the near one is the more urgent: {told:?}");
    for (n, id) in ids(40).iter().enumerate() {
        site.put(&order(id, n as u64)).await;
    }
    // One that came to be forbidden.
    let mut moved = order("o0000", 0);
    moved["country"] = "de".into();
    site.put(&moved).await;
    site.settled().await;
    for (n, id) in ids(40).iter().enumerate() {
        let is_forbidden = n == 0 || order(id, n as u64)["country"] == "de";
        assert!(site.held("copy", id).await.is_some(), "{id}");
        for source in ["docs", "fast"] {
            assert_eq!(site.held(source, id).await.is_some(), !is_forbidden, "{source} {id}");
        }
    }
    // While the truth is away the near follower answers, and a far one does not answer for it.
    site.cut("main", true);
    let (found, by) = site.read("o0002", &[]).await.unwrap();
    assert_eq!((found, by.as_str()), (Some(order("o0002", 2)), "copy"));
    site.cut("copy", true);
    let nobody = site.read("o0001", &[]).await;
    assert!(nobody.is_err(), "those in the other region hold only some: {nobody:?}");
    site.cut("copy", false);
    site.cut("main", false);
    site.end().await;
}
