//! The rules of the house as a test: what a reviewer would otherwise have to look for.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;

struct File {
    path: String,
    text: String,
}

impl File {
    /// The part before the tests in the file.
    fn product(&self) -> &str {
        self.text.split("\n#[cfg(test)]").next().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        ["/tests/", "/tests.rs", "/examples/", "/benches/"]
            .iter()
            .any(|part| self.path.contains(part))
            || ["tests/", "bench/", "crates/testkit/"]
                .iter()
                .any(|start| self.path.starts_with(start))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a folder of the repository")
        .to_owned()
}

fn rust_files() -> Vec<File> {
    let mut found = Vec::new();
    for top in ["crates", "sources", "tests", "bench"] {
        walk(&root().join(top), &mut found);
    }
    assert!(found.len() > 50, "the files of the repository were not found");
    found
}

fn walk(folder: &Path, found: &mut Vec<File>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                walk(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("a source file is readable text");
            let path =
                path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            found.push(File { path, text });
        }
    }
}

fn assert_none(breaches: Vec<String>, rule: &str) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

#[test]
fn every_file_opens_with_its_purpose() {
    let says = |f: &File| f.text.starts_with("//!") || f.text.starts_with("#![doc = include_str!");
    let silent = rust_files()
        .into_iter()
        .filter(|f| !says(f) && !f.path.ends_with("/tests.rs"))
        .map(|f| f.path);
    assert_none(
        silent.collect(),
        "a file starts with a //! line that says what it is for; tests.rs tests its parent",
    );
}

#[test]
fn files_stay_small_enough_to_hold_in_the_head() {
    let long = rust_files().into_iter().filter(|f| !f.is_test()).filter_map(|f| {
        let lines = f.product().lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{} has {lines} lines", f.path))
    });
    assert_none(long.collect(), "a file has at most 600 lines before its tests");
}

#[test]
fn functions_stay_short() {
    let mut long = Vec::new();
    for file in rust_files().iter().filter(|f| !f.is_test()) {
        for (name, lines) in functions(file.product()) {
            if lines > FUNCTION_LINES_MAX {
                long.push(format!("{}: {name} has {lines} lines", file.path));
            }
        }
    }
    assert_none(long, "a function has at most 70 lines");
}

/// Functions with their lengths, by the indentation that rustfmt gives their first and last line.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let starts = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) fn ",
            "pub(crate) async fn ",
            "pub(super) fn ",
            "pub(super) async fn ",
        ];
        let Some(start) = starts.iter().find(|s| body.starts_with(**s)) else { continue };
        let name: String =
            body[start.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // What a trait only declares has no end of its own.
        let last = lines[n..].iter().find(|l| l.ends_with([';', '{', '}']));
        if last.is_some_and(|l| l.ends_with(';')) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - body.len()]);
        if let Some(length) = lines[n..].iter().position(|l| *l == end) {
            found.push((name, length + 1));
        }
    }
    found
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "dbg!("];
    let mut left = Vec::new();
    for file in rust_files().iter().filter(|f| f.path != "tests/tidy.rs") {
        for (n, line) in file.text.lines().enumerate() {
            if marks.iter().any(|m| line.contains(m)) {
                left.push(format!("{}:{}: {}", file.path, n + 1, line.trim()));
            }
        }
    }
    assert_none(left, "no unfinished marks");
}

/// The words of the glossary that have a forbidden synonym.
#[test]
fn one_concept_has_one_name() {
    let synonyms = ["backend", "master", "slave", "datastore", "sink"];
    let mut found = Vec::new();
    for file in rust_files().iter().filter(|f| f.path != "tests/tidy.rs") {
        for (n, line) in file.text.lines().enumerate() {
            let lower = line.to_lowercase();
            let words = lower.split(|c: char| !c.is_alphanumeric());
            if words.clone().any(|w| synonyms.contains(&w))
                && (line.contains("fn ")
                    || line.contains("struct ")
                    || line.contains("enum ")
                    || line.contains("mod "))
            {
                found.push(format!("{}:{}: {}", file.path, n + 1, line.trim()));
            }
        }
    }
    assert_none(found, "names use the words of docs/glossary.md");
}

/// Who may depend on whom: `crate -> allowed crates of ours`.
#[test]
fn dependencies_point_one_way() {
    let core = "unisono-core";
    let mut allowed: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        ("crates/core", vec![]),
        ("crates/policy", vec![core]),
        ("crates/config", vec![core, "unisono-policy"]),
        ("crates/engine", vec![core, "unisono-policy"]),
        ("crates/hooks", vec![core, "unisono-policy", "unisono-engine"]),
        ("crates/sql", vec![core]),
        ("crates/testkit", vec![core]),
    ]);
    let kinds: Vec<String> = fs::read_dir(root().join("sources"))
        .expect("sources is a folder")
        .flatten()
        .map(|e| format!("sources/{}", e.file_name().to_string_lossy()))
        .collect();
    for kind in &kinds {
        allowed.insert(kind, vec![core, "unisono-sql"]);
    }
    let mut wrong = Vec::new();
    for (folder, allowed) in allowed {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml"))
            .expect("a crate has a manifest");
        let product = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        let ours = product
            .lines()
            .filter(|l| l.starts_with("unisono"))
            .filter_map(|l| l.split(['.', ' ', '=']).next());
        wrong.extend(
            ours.filter(|d| !allowed.contains(d)).map(|d| format!("{folder} depends on {d}")),
        );
        let io = ["tokio", "rusqlite", "tantivy", "hyper", "axum", "reqwest"];
        if folder == "crates/core" || folder == "crates/policy" {
            let driver =
                product.lines().filter(|l| io.iter().any(|d| l.starts_with(&format!("{d}."))));
            wrong.extend(driver.map(|l| format!("{folder} does I/O: {l}")));
        }
    }
    assert_none(
        wrong,
        "core <- policy <- engine and config; sources know core, and what SQL has in common",
    );
}

#[test]
fn the_engine_knows_no_kind() {
    let kinds = ["sqlite", "tantivy", "postgres", "redis", "mysql", "mongodb", "opensearch"];
    let mut named = Vec::new();
    for file in rust_files().iter().filter(|f| {
        f.path.starts_with("crates/engine/src") || f.path.starts_with("crates/core/src/source")
    }) {
        for (n, line) in
            file.product().lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//"))
        {
            if kinds.iter().any(|k| line.to_lowercase().contains(k))
                && !line.contains("hint")
                && !line.contains('"')
            {
                named.push(format!("{}:{}: {}", file.path, n + 1, line.trim()));
            }
        }
    }
    assert_none(named, "the engine is written against roles");
}

/// Data changes by one road only.
#[test]
fn each_effect_has_one_place() {
    let places = [
        // A projection is a follower that keeps what it is told in another one.
        ("follower.apply(", &["crates/engine/src/delivery/", "crates/engine/src/projection/"][..]),
        ("truth.commit(", &["crates/engine/src/write/"]),
        (".fill(&self.entity", &["crates/engine/src/cache/"]),
        ("truth.trim(", &["crates/engine/src/log/trim.rs"]),
    ];
    let mut elsewhere = Vec::new();
    for file in rust_files().iter().filter(|f| f.path.starts_with("crates/") && !f.is_test()) {
        for (call, allowed) in places {
            if file.product().contains(call) && !allowed.iter().any(|a| file.path.starts_with(a)) {
                elsewhere.push(format!("{} calls {call}", file.path));
            }
        }
    }
    assert_none(elsewhere, "only delivery applies, only write commits, only the feed fills");
}

#[test]
fn features_are_chosen_in_one_file() {
    let files = rust_files();
    let chosen = files.iter().filter(|f| !f.is_test() && f.product().contains("cfg(feature"));
    // A source may have features of its own, such as another place for the same layout.
    let elsewhere = chosen
        .filter(|f| f.path != "crates/unisono/src/registry.rs" && !f.path.starts_with("sources/"))
        .map(|f| f.path.clone());
    assert_none(elsewhere.collect(), "outside a source, cfg(feature) stands in the registry only");
}

#[test]
fn the_repository_stands_alone() {
    let foreign = ["../shared", "/work/", "crates.io/api", ".library"];
    let mut found = Vec::new();
    for file in
        rust_files().iter().filter(|f| f.path != "tests/tidy.rs" && !f.path.starts_with("bench/"))
    {
        found.extend(
            foreign
                .iter()
                .filter(|w| file.text.contains(**w))
                .map(|w| format!("{}: {w}", file.path)),
        );
    }
    assert_none(found, "nothing outside the repository is needed");
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"] {
        let text =
            fs::read_to_string(root().join(name)).unwrap_or_else(|_| panic!("{name} is missing"));
        for part in text.split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap_or_default();
            let outside =
                target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !outside && !root().join(target).exists() {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    assert_none(broken, "links lead to files that are there");
}
