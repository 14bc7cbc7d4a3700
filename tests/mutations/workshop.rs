//! The copy of the crates on which mutations are tried out.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::table::{Mutation, Trial};

/// What the simulator is built from.
const FOLDERS: &[&str] = &[
    "crates/core",
    "crates/policy",
    "crates/engine",
    "crates/testkit",
    "sources/memory",
    "tests/simulation",
    "tests/two_truths",
];
/// How many seeds of the simulator take as long as one world of two truths.
const WORTH: u64 = 20;
/// A run that takes longer never comes to an end, which is a way of being caught.
const RUN_MAX: Duration = Duration::from_secs(600);

const MANIFEST: &str = r#"
[package]
name = "unisono-simulation"
version = "0.0.0"
edition.workspace = true
publish = false

[[bin]]
name = "simulation"
path = "simulation/main.rs"

[[test]]
name = "two_truths"
path = "two_truths/main.rs"

[dependencies]
unisono-core.workspace = true
unisono-engine.workspace = true
unisono-policy.workspace = true
unisono-source-memory.workspace = true
unisono-testkit.workspace = true
async-trait.workspace = true
futures.workspace = true
rand.workspace = true
serde_json.workspace = true
tokio.workspace = true
"#;

/// What became of a mutation.
pub(crate) enum Verdict {
    /// Every seed passed.
    Passed,
    /// The first seed that failed, and why.
    Failed(String),
    /// It does not compile: the guard cannot be forgotten.
    NotCompiled,
    /// It never came to an end.
    Endless,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Passed => f.write_str("passed"),
            Verdict::Failed(how) => {
                write!(f, "caught: {}", how.chars().take(120).collect::<String>())
            }
            Verdict::NotCompiled => f.write_str("does not compile"),
            Verdict::Endless => f.write_str("caught: comes to no end"),
        }
    }
}

/// The copy.
pub(crate) struct Workshop {
    original: PathBuf,
    copy: PathBuf,
}

impl Workshop {
    /// Brings the copy up to date, without touching files that are equal.
    pub(crate) fn open() -> Result<Self, String> {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no workspace")?;
        let copy = original.join("target/mutations");
        let workshop = Workshop { original: original.to_owned(), copy };
        for folder in FOLDERS {
            workshop.sync(Path::new(folder))?;
        }
        let manifest = read(&workshop.original.join("Cargo.toml"))?;
        let member = |line: &str| match line {
            l if l.starts_with("members") => {
                "members = [\"crates/*\", \"sources/*\", \"tests\"]".to_owned()
            }
            l if l.starts_with("default-members") => "default-members = [\"tests\"]".to_owned(),
            l => l.to_owned(),
        };
        let manifest: Vec<String> = manifest.lines().map(member).collect();
        write(&workshop.copy.join("Cargo.toml"), &manifest.join("\n"))?;
        write(&workshop.copy.join("tests/Cargo.toml"), MANIFEST)?;
        let lock = workshop.copy.join("Cargo.lock");
        if !lock.exists() {
            write(&lock, &read(&workshop.original.join("Cargo.lock"))?)?;
        }
        Ok(workshop)
    }

    /// Makes a folder of the copy equal to the original.
    fn sync(&self, folder: &Path) -> Result<(), String> {
        let (from, to) = (self.original.join(folder), self.copy.join(folder));
        let named = |e: std::io::Error| format!("{}: {e}", folder.display());
        let list = |path: &Path| -> Result<Vec<_>, String> {
            let entries = fs::read_dir(path).map_err(named)?.flatten();
            Ok(entries.map(|e| e.file_name()).collect())
        };
        fs::create_dir_all(&to).map_err(named)?;
        for name in list(&to)? {
            if !from.join(&name).exists() {
                let gone = to.join(&name);
                let removed =
                    if gone.is_dir() { fs::remove_dir_all(gone) } else { fs::remove_file(gone) };
                removed.map_err(named)?;
            }
        }
        for name in list(&from)? {
            if from.join(&name).is_dir() {
                self.sync(&folder.join(&name))?;
            } else {
                write(&to.join(&name), &read(&from.join(&name))?)?;
            }
        }
        Ok(())
    }

    /// The text of a mutation's file with the mutation in it.
    pub(crate) fn mutated(&self, mutation: &Mutation) -> Result<String, String> {
        let text = read(&self.original.join(mutation.file))?;
        match text.matches(mutation.text).count() {
            1 => Ok(text.replacen(mutation.text, mutation.replacement, 1)),
            n => Err(format!(
                "{}: its text stands {n} times in {} and must stand once",
                mutation.name, mutation.file
            )),
        }
    }

    /// Tries one mutation out, and takes it back.
    pub(crate) fn with(&self, mutation: &Mutation, seeds: u64) -> Result<Verdict, String> {
        let path = self.copy.join(mutation.file);
        write(&path, &self.mutated(mutation)?)?;
        let verdict = self.try_out(mutation.by, seeds);
        write(&path, &read(&self.original.join(mutation.file))?)?;
        verdict
    }

    /// Builds what is there and runs it until the first failure; of worlds of two truths, which take longer, one for each
    /// `WORTH` seeds.
    pub(crate) fn try_out(&self, by: Trial, seeds: u64) -> Result<Verdict, String> {
        let target = self.copy.join("target");
        let what = match by {
            Trial::Simulation => ["build", "--bin", "simulation"].as_slice(),
            Trial::TwoTruths => ["test", "--no-run", "--test", "two_truths"].as_slice(),
        };
        let built = Command::new(std::env::var("CARGO").unwrap_or("cargo".to_owned()))
            .args(what)
            .args(["--quiet", "--offline", "--message-format=json-render-diagnostics"])
            .current_dir(&self.copy)
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", "-A warnings")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .output()
            .map_err(|e| format!("cargo cannot be run: {e}"))?;
        if !built.status.success() {
            let told = String::from_utf8_lossy(&built.stderr).into_owned();
            return match told.contains("error[") || told.contains("error: could not compile") {
                true => Ok(Verdict::NotCompiled),
                false => Err(told),
            };
        }
        let program = program(&String::from_utf8_lossy(&built.stdout))?;
        let mut command = Command::new(program);
        match by {
            Trial::Simulation => command.args(["--first", "--seeds", &seeds.to_string()]),
            Trial::TwoTruths => command.env("SEEDS", (seeds / WORTH).max(1).to_string()),
        };
        self.watch(command)
    }

    /// Runs a program until it ends, or for as long as it may take.
    fn watch(&self, mut command: Command) -> Result<Verdict, String> {
        let told = self.copy.join("target/told");
        let file = fs::File::create(&told).map_err(|e| e.to_string())?;
        let mut running = command
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("what was built cannot be run: {e}"))?;
        let step = Duration::from_millis(50);
        for _ in 0..RUN_MAX.as_millis() / step.as_millis() {
            let ended = running.try_wait().map_err(|e| e.to_string())?;
            if let Some(status) = ended {
                if status.success() {
                    return Ok(Verdict::Passed);
                }
                let told = read(&told)?;
                let lines = told.lines();
                let mut failed =
                    lines.filter(|l| l.starts_with("FAILED") || l.starts_with("SEED="));
                return Ok(Verdict::Failed(failed.next().unwrap_or("it crashed").to_owned()));
            }
            std::thread::sleep(step);
        }
        running.kill().and_then(|()| running.wait()).map_err(|e| e.to_string())?;
        Ok(Verdict::Endless)
    }
}

/// The program that was built, as cargo tells of it.
fn program(told: &str) -> Result<PathBuf, String> {
    let lines =
        told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut built = lines.filter_map(|line| Some(PathBuf::from(line["executable"].as_str()?)));
    built.next_back().ok_or_else(|| "cargo does not tell what it has built".to_owned())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Writes a file unless it has this text already, so that nothing is built again without need.
fn write(path: &Path, text: &str) -> Result<(), String> {
    if fs::read_to_string(path).is_ok_and(|held| held == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
