//! Nonsense on the command line and in configurations: each gets its exit code and a message that names the fix, and
//! changes nothing.

use crate::program::{CONFIGURATION, Place};

/// Arguments, exit code, part of what is said.
const BAD: &[(&[&str], i32, &str)] = &[
    (&["nonsense"], 2, "unrecognized subcommand"),
    (&["serv"], 2, "serve"),
    (&["check", "--config", "missing.toml"], 78, "missing.toml"),
    (&["serve", "--config", "missing.toml"], 78, "missing.toml"),
    (&["get", "product"], 2, "required"),
    (&["get", "nothing", "1"], 1, "no such entity"),
    (&["get", "prodct", "1"], 1, "product"),
    (&["get", "product", "absent"], 1, "not_found"),
    (&["get", "product", ""], 2, "key is empty"),
    (&["put", "product", "{"], 2, "JSON"),
    (&["put", "product", "[]"], 2, "JSON object"),
    (&["put", "product", r#"{"id":"1"}"#], 2, "is required"),
    (&["put", "product", r#"{"id":"1","name":1}"#], 2, "name"),
    (&["put", "product", r#"{"id":"1","name":"x","colour":"red"}"#], 2, "not declared"),
    (&["put", "product", r#"{"id":"1","name":"x","price":"1.234"}"#], 2, "digits after the point"),
    (&["put", "product", r#"{"id":"1","name":"x","price":"12345678901.00"}"#], 2, "digits"),
    (&["put", "product", r#"{"id":"1","name":"x","stock":1e400}"#], 2, "JSON"),
    (&["put", "product", "@missing.json"], 2, "missing.json"),
    (&["find", "product", "colour=eq.red"], 2, "colour"),
    (&["find", "product", "stock=gt.many"], 2, "stock"),
    (&["find", "product", "--limit", "many"], 2, "--limit"),
    (&["find", "product", "--order", "colour"], 2, "colour"),
    (&["import", "product", "missing.jsonl"], 2, "missing.jsonl"),
    (&["import", "nothing", "unisono.toml"], 1, "no such entity"),
    (&["backfill", "product", "nowhere"], 1, "nowhere"),
    (&["verify", "--entity", "nothing"], 1, "not_found"),
    (&["explain", "no_such_code"], 1, "no_such_code"),
    (&["status", "--url", "http://127.0.0.1:1"], 3, "127.0.0.1:1"),
    (&["status", "--url", "ftp://127.0.0.1:1"], 2, "ftp"),
];

#[test]
fn nonsense_is_refused_with_its_exit_code_and_the_fix() {
    let place = Place::new(CONFIGURATION);
    let mut wrong = Vec::new();
    for (arguments, code, part) in BAD {
        let output = place.run(arguments);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if output.status.code() != Some(*code) || !said.contains(part) {
            wrong.push(format!(
                "{arguments:?}: exit {:?}, wanted {code} and {part:?}\n{said}",
                output.status.code()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let after = place.run(&["export", "product"]);
    assert!(
        after.status.success() && after.stdout.is_empty(),
        "something was written by a refused command"
    );
}

#[test]
fn a_bad_configuration_is_shown_with_its_lines_and_exits_with_78() {
    let text = CONFIGURATION
        .replace("kind = \"tantivy\"", "kind = \"tantvy\"")
        .replace("truth = \"main\"", "trut = \"main\"");
    let place = Place::new(&text);
    let output = place.run(&["check"]);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(78), "{said}");
    for part in
        ["unisono.toml:10:8", "did you mean", "tantivy", "unisono.toml:23:1", "truth", "^^^"]
    {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    assert!(!place.folder.path().join("data").exists(), "checking made something");
}
