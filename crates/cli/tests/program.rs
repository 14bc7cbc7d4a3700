//! The program as people and scripts use it: what it prints, and how it exits.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value as Json;

const CONFIGURATION: &str = r#"
[sources.main]
kind = "sqlite"
path = "main.db"
[sources.search]
kind = "tantivy"
path = "search"
[entities.product]
key = "id"
truth = "main"
[entities.product.fields]
id = "string"
name = { type = "string", search = true, required = true }
price = "decimal(12,2)"
[[entities.product.followers]]
source = "search"
"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unisono.toml"), CONFIGURATION).unwrap();
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unisono"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("HOME", folder);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("UNISONO_")) {
        command.env_remove(name);
    }
    command
}

fn unisono(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// Runs to a good end and answers what was printed.
fn good(folder: &Path, arguments: &[&str]) -> String {
    let output = unisono(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running server; killed at the end of the test.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        Running::logging(folder, arguments, Stdio::null())
    }

    fn logging(folder: &Path, arguments: &[&str], log: Stdio) -> Self {
        let mut command = command(folder, arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Running { child, output }
    }

    /// The lines up to the one that holds a text, that one included.
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.contains(text)) {
            let mut line = String::new();
            assert!(
                self.output.read_line(&mut line).unwrap() > 0,
                "ended without {text:?}: {lines:?}"
            );
            lines.push(line);
        }
        lines
    }

    fn url(&mut self) -> String {
        let lines = self.until("http://");
        let line = lines.last().unwrap();
        line[line.find("http://").unwrap()..].trim().to_owned()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Asks it to end, and answers its exit code.
    fn terminate(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn products(count: u32) -> String {
    let line = |n| format!("{{\"id\":\"p{n:05}\",\"name\":\"Thing {n}\",\"price\":\"{n}.50\"}}\n");
    (0..count).map(line).collect()
}

#[test]
fn what_is_imported_is_found_verified_and_exported_unchanged() {
    let folder = folder();
    let f = folder.path();
    fs::write(f.join("in.jsonl"), products(3000)).unwrap();
    let summary: Json =
        serde_json::from_str(&good(f, &["import", "product", "in.jsonl", "--json"])).unwrap();
    assert_eq!((&summary["records"], &summary["refused"]), (&3000.into(), &0.into()));
    assert_eq!(summary["lag_changes"], 0, "followers have everything when the command ends");

    assert!(good(f, &["get", "product", "p00007"]).contains("\"price\": \"7.50\""));
    let dearest = good(
        f,
        &["find", "product", "price=lt.100", "--order", "-price", "--limit", "2", "--json"],
    );
    let names: Vec<Json> =
        dearest.lines().map(|l| serde_json::from_str::<Json>(l).unwrap()["name"].take()).collect();
    assert_eq!(names, ["Thing 99", "Thing 98"]);
    assert!(good(f, &["find", "product", "--search", "thing 42"]).contains("p00042"));
    assert!(good(f, &["verify"]).contains("✓ agrees"));

    assert_eq!(good(f, &["export", "product"]), products(3000));
    good(f, &["export", "product", "--gzip", "-o", "out.gz"]);
    good(f, &["import", "product", "out.gz", "--data", "copy"]);
    assert_eq!(good(f, &["export", "product", "--data", "copy"]), products(3000));
}

#[test]
fn refused_lines_are_named_kept_and_make_the_exit_code_one() {
    let folder = folder();
    let f = folder.path();
    fs::write(f.join("in.jsonl"), "{\"id\":\"a\",\"name\":\"x\"}\n{\"id\":\"b\"}\nnope\n").unwrap();
    let output = unisono(f, &["import", "product", "in.jsonl", "--errors", "refused.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("line 2: ") && errors(&output).contains("line 3: "),
        "{}",
        errors(&output)
    );
    let refused = fs::read_to_string(f.join("refused.jsonl")).unwrap();
    let lines: Vec<Json> =
        refused.lines().map(|l| serde_json::from_str::<Json>(l).unwrap()["line"].take()).collect();
    assert_eq!(lines, [2, 3]);
    good(f, &["get", "product", "a"]);
}

#[test]
fn a_command_works_the_same_on_a_server_and_refuses_to_open_its_data_beside_it() {
    let folder = folder();
    let f = folder.path();
    let mut server = Running::start(f, &["serve", "--listen", "127.0.0.1:0"]);
    let url = server.url();
    let beside = unisono(f, &["status"]);
    assert_eq!(beside.status.code(), Some(3));
    assert!(errors(&beside).contains(&format!("--url {url}")), "{}", errors(&beside));

    let on = |arguments: &[&str]| unisono(f, &[arguments, &["--url", &url]].concat());
    fs::write(f.join("in.jsonl"), products(1500)).unwrap();
    assert_eq!(on(&["import", "product", "in.jsonl"]).status.code(), Some(0));
    assert_eq!(String::from_utf8(on(&["export", "product"]).stdout).unwrap(), products(1500));
    let record = r#"{"id":"p00001","name":"Other"}"#;
    assert_eq!(on(&["put", "product", record]).status.code(), Some(0));
    assert_eq!(on(&["put", "product", record, "--create"]).status.code(), Some(1));
    assert_eq!(on(&["put", "product", record, "--if-match", "1"]).status.code(), Some(1));
    assert_eq!(on(&["get", "product", "none"]).status.code(), Some(1));
    let log = on(&["log", "--limit", "0", "--json"]);
    assert_eq!(String::from_utf8(log.stdout).unwrap().lines().count(), 1501);
    let history = on(&["log", "--entity", "product", "--key", "p00001", "--json"]);
    assert_eq!(String::from_utf8(history.stdout).unwrap().lines().count(), 2);
    let verified = on(&["verify", "--json"]);
    assert_eq!(verified.status.code(), Some(0));
    let report: Json = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report["comparisons"][0]["records"], 1500);
    let backfilled: Json =
        serde_json::from_slice(&on(&["backfill", "product", "search", "--json"]).stdout).unwrap();
    assert_eq!(backfilled["copied"], 0, "the follower had everything");
    assert_eq!(on(&["doctor"]).status.code(), Some(0));
    assert_eq!(on(&["explain", "product?price=gt.3"]).status.code(), Some(0));

    assert_eq!(server.terminate(), Some(0));
    assert!(good(f, &["get", "product", "p00001"]).contains("Other"));
}

#[test]
fn a_server_takes_in_its_file_again_by_command_and_by_signal() {
    let folder = folder();
    let f = folder.path();
    let write = |text: &str| fs::write(f.join("unisono.toml"), text).unwrap();
    let held = |time: &str| format!("{CONFIGURATION}[entities.product.write]\nhold = \"{time}\"\n");
    let log = f.join("log");
    let stderr = fs::File::create(&log).unwrap().into();
    let mut server = Running::logging(f, &["serve", "--listen", "127.0.0.1:0"], stderr);
    let url = server.url();
    let reload = |more: &[&str]| unisono(f, &[&["reload", "--url", &url], more].concat());
    let said = |more: &[&str]| String::from_utf8(reload(more).stdout).unwrap();
    assert_eq!(said(&[]), "nothing is different\n", "the address of the command line stays");

    write(&held("2s"));
    let change = "entities.product.write.hold: 0ms -> 2s\n";
    assert_eq!(said(&["--dry-run"]), change);
    assert_eq!(said(&[]), change);
    assert_eq!(said(&[]), "nothing is different\n");

    write(&held("soon"));
    let refused = reload(&[]);
    assert_eq!(refused.status.code(), Some(78));
    let text = errors(&refused);
    assert!(text.contains("unisono.toml:18:8") && text.contains("hold = \"soon\""), "{text}");
    write(&held("3s").replace("decimal(12,2)", "decimal(12,3)"));
    let refused = reload(&["--dry-run"]);
    assert_eq!(refused.status.code(), Some(78));
    let text = errors(&refused);
    assert!(text.contains("entities.product.fields"), "{text}");
    assert!(text.contains("restart to change it"), "{text}");

    let logged = |text: &str| {
        let deadline = 600;
        let found = (0..deadline).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            fs::read_to_string(&log).unwrap().contains(text)
        });
        assert!(found, "{text:?} is not in {}", fs::read_to_string(&log).unwrap());
    };
    server.signal("-HUP");
    logged("not reloaded: the configuration stays as it was");
    write(&held("4s"));
    server.signal("-HUP");
    logged("reloaded: entities.product.write.hold: 2s -> 4s");
    assert_eq!(said(&[]), "nothing is different\n");
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(unisono(f, &["reload"]).status.code(), Some(2), "only a server can be reloaded");
}

#[test]
fn the_demo_survives_kill_and_loads_its_sample_once() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let mut demo = Running::start(f, &["demo", "--listen", "127.0.0.1:0"]);
    let first = demo.until("http://");
    assert_eq!(
        first.iter().filter(|line| line.starts_with("loaded 2,000 records")).count(),
        2,
        "{first:?}"
    );
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();

    let mut demo = Running::start(f, &["demo", "--listen", "127.0.0.1:0"]);
    let lines = demo.until("http://");
    assert!(!lines.iter().any(|line| line.starts_with("loaded")), "{lines:?}");
    let line = lines.last().unwrap();
    let url = line[line.find("http://").unwrap()..].trim();
    let report: Json = serde_json::from_str(&good(f, &["verify", "--url", url, "--json"])).unwrap();
    let records: u64 = report["comparisons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["records"].as_u64().unwrap())
        .sum();
    assert_eq!(records, 6000, "products in two followers, orders in one");
    assert_eq!(demo.terminate(), Some(0));
}

#[test]
fn exit_codes_tell_who_has_to_act() {
    let folder = folder();
    let f = folder.path();
    let code = |arguments: &[&str]| unisono(f, arguments).status.code();
    assert_eq!(code(&["check"]), Some(0));
    assert_eq!(code(&["frobnicate"]), Some(2));
    assert_eq!(code(&["find", "product", "nosuch=eq.1"]), Some(2));
    assert_eq!(code(&["get", "produkt", "1"]), Some(1));
    assert_eq!(code(&["status", "--url", "http://127.0.0.1:1"]), Some(3));
    assert_eq!(code(&["status", "--config", "nosuch.toml"]), Some(78));
    fs::write(f.join("bad.toml"), CONFIGURATION.replace("truth = \"main\"", "truth = \"mian\""))
        .unwrap();
    let checked = unisono(f, &["check", "--config", "bad.toml"]);
    assert_eq!(checked.status.code(), Some(78));
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(
        text.contains("bad.toml:10:") && text.contains("^^^^") && text.contains("main"),
        "{text}"
    );
    let report: Json =
        serde_json::from_slice(&unisono(f, &["check", "--config", "bad.toml", "--json"]).stdout)
            .unwrap();
    assert_eq!((&report["ok"], &report["problems"][0]["line"]), (&false.into(), &10.into()));
}

#[test]
fn what_is_printed_for_other_programs_is_well_formed() {
    let folder = folder();
    let f = folder.path();
    serde_json::from_str::<Json>(&good(f, &["check", "--print-schema"])).unwrap();
    fs::write(f.join("example.toml"), good(f, &["check", "--print-example"])).unwrap();
    good(f, &["check", "--config", "example.toml"]);
    fs::write(f.join("demo.toml"), good(f, &["demo", "--print-config"])).unwrap();
    good(f, &["check", "--config", "demo.toml"]);
    assert!(good(f, &["explain", "version_conflict"]).starts_with("# version_conflict"));
    assert!(good(f, &["completions", "bash"]).contains("dead-letters"));
    good(f, &["man", "manual"]);
    assert!(f.join("manual/unisono-verify.1").exists());
    good(f, &["doctor"]);
}

#[test]
fn a_projection_is_listed_rebuilt_and_gone_back_from() {
    let folder = folder();
    let f = folder.path();
    let projection = "\n[projections.prices]\nfrom = \"product\"\n[projections.prices.fields]\nproducts = { count = true }\n\
        [[projections.prices.targets]]\nsource = \"main\"\n";
    fs::write(f.join("unisono.toml"), format!("{CONFIGURATION}{projection}")).unwrap();
    fs::write(f.join("in.jsonl"), products(500)).unwrap();
    good(f, &["import", "product", "in.jsonl"]);
    let shown: Json = serde_json::from_str(&good(f, &["projections", "list", "--json"])).unwrap();
    assert_eq!((&shown["name"], &shown["version"]), (&"prices".into(), &1.into()));
    // By itself, then on a server.
    let rebuilt: Json =
        serde_json::from_str(&good(f, &["projections", "rebuild", "prices", "--json"])).unwrap();
    assert_eq!((&rebuilt["version"], &rebuilt["beside"]["state"]), (&2.into(), &"former".into()));
    let mut server = Running::start(f, &["serve", "--listen", "127.0.0.1:0"]);
    let url = server.url();
    let on =
        |arguments: &[&str]| good(f, &[&["projections"], arguments, &["--url", &url]].concat());
    assert!(on(&["back", "prices"]).contains("prices: version 1"));
    assert!(on(&["verify", "prices"]).contains("prices"));
    let discarded = on(&["discard", "prices"]);
    assert!(!discarded.contains("beside it"), "{discarded}");
    let unknown = unisono(f, &["projections", "show", "price", "--url", &url]);
    assert!(errors(&unknown).contains("did you mean prices?"), "{}", errors(&unknown));
    assert_eq!(server.terminate(), Some(0));
}
