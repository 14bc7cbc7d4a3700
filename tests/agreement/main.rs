//! The whole product on real engines under load and kills: PostgreSQL is the truth, and OpenSearch, Redis, MongoDB,
//! MariaDB and S3 follow at once.
//!
//! ```text
//! engines/up
//! cargo build --release -p unisono-cli --features full
//! cargo run --release -p unisono-tests --features full --bin agreement -- [--seconds 60] [--rate 5000] [--hot 1000] [--kill-every 5] [--data DIR]
//! ```
//!
//! Loads the products, offers updates at a steady rate with one hot record, kills the server again and again, and at
//! the end has `compare.py`, which shares no code with the product, compare every record of every follower with the
//! truth's table. Without `--data` it takes the sample that comes with the product and says so.
#![expect(clippy::print_stdout, reason = "the outcome is what this program is for")]
#![expect(clippy::disallowed_methods, reason = "it drives another process in real time")]

mod load;
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use server::Server;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// How long followers may take at the end.
const CATCH_UP_MAX: Duration = Duration::from_secs(900);
const FOLLOWERS: [(&str, &str); 5] = [
    ("redis", "format = \"json\""),
    ("opensearch", ""),
    ("mongodb", ""),
    ("mysql", ""),
    ("s3", ""),
];

const ENTITY: &str = r#"
[entities.product]
key = "id"
truth = "postgres"
[entities.product.fields]
id = "string"
department = { type = "string", search = true }
category = { type = "string", search = true }
type = { type = "string", search = true }
brand = "string"
manufacturer = "string"
package_size = "string"
price = "decimal(12,2)"
"#;

struct Plan {
    seconds: u64,
    rate: u64,
    hot: u64,
    kill_every: Duration,
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Error> {
    let plan = plan()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no repository")?;
    let folder = tempfile::tempdir()?;
    let configuration = configuration()?;
    std::fs::write(folder.path().join("unisono.toml"), configuration)?;
    let records = match &plan.data {
        Some(data) => data.join("products.jsonl.gz"),
        None => {
            println!("THE SAMPLE ONLY: name the folder of the full data with --data");
            root.join("data/products.jsonl.gz")
        }
    };
    let keys = Arc::new(load::keys(&records)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let server = Server::start(folder.path())?;
    server.import("product", &records)?;
    let seen = runtime.block_on(load::offer(server, &plan, keys))?;
    println!("{seen}");
    let began = Instant::now();
    runtime.block_on(seen.server.caught_up(CATCH_UP_MAX))?;
    println!(
        "every follower has everything {:.1} s after the last update",
        began.elapsed().as_secs_f64()
    );
    println!("most memory of a server: {:.0} MB", seen.server.peak_memory());
    drop(seen.server);
    let script = root.join("tests/agreement/compare.py");
    let status = Command::new(server::python()?).arg(script).arg(folder.path()).status()?;
    Ok(status.success())
}

fn plan() -> Result<Plan, Error> {
    let mut plan =
        Plan { seconds: 60, rate: 5000, hot: 1000, kill_every: Duration::from_secs(5), data: None };
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        let value = given.next().ok_or(format!("{word} needs a value"))?;
        match word.as_str() {
            "--seconds" => plan.seconds = value.parse()?,
            "--rate" => plan.rate = value.parse()?,
            "--hot" => plan.hot = value.parse()?,
            "--kill-every" => plan.kill_every = Duration::from_secs_f64(value.parse()?),
            "--data" => plan.data = Some(std::fs::canonicalize(value)?),
            _ => return Err(format!("unknown option {word}").into()),
        }
    }
    Ok(plan)
}

/// The truth and every follower as their engines were started, in a namespace of this run.
fn configuration() -> Result<String, Error> {
    let namespace = format!("t{}", std::process::id());
    let section = |kind: &str| -> Result<String, Error> {
        let file = server::engines().join(kind).join("source.toml");
        let text = std::fs::read_to_string(&file)
            .map_err(|e| format!("{}: {e}; start it: engines/up {kind}", file.display()))?;
        let options = text.replace("{namespace}", &namespace);
        Ok(format!("[sources.{kind}]\nkind = \"{kind}\"\n{options}\n"))
    };
    let mut text = section("postgres")?;
    for (kind, _) in FOLLOWERS {
        text += &section(kind)?;
    }
    text += ENTITY;
    for (kind, options) in FOLLOWERS {
        text += &format!("[[entities.product.followers]]\nsource = \"{kind}\"\n{options}\n");
    }
    Ok(text)
}
