//! The full real data through the program: rates, memory, and searches over it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::data::lines;
use crate::report::{Report, middle, quantile, time};
use crate::{Plan, Result, load};

/// Products and orders with their real fields; products are searched by tantivy.
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
department = { type = "string", search = true }
category = { type = "string", search = true }
type = { type = "string", search = true }
brand = "string"
manufacturer = "string"
package_size = "string"
price = "decimal(12,2)"
[[entities.product.followers]]
source = "search"
[entities.order]
key = "id"
truth = "main"
[entities.order.fields]
id = "string"
user_id = { type = "string", index = true }
store_id = "string"
created_at = "timestamp(0)"
total_amount = "decimal(12,2)"
items = { type = "list", of = { product_id = "string", quantity = "integer", amount = "decimal(12,2)" } }
"#;

const SEARCHES: [&str; 6] = ["ice", "chocolate", "frozen pizza", "milk", "organic", "soft drinks"];

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("unisono.toml"), CONFIGURATION)?;
    let data = std::fs::canonicalize(&plan.data).map_err(|e| {
        format!("the full data is not at {}: {e}; name its folder with --data", plan.data.display())
    })?;
    for (entity, file) in [("product", "products.jsonl.gz"), ("order", "orders.jsonl.gz")] {
        import(folder.path(), entity, &data.join(file), report)?;
    }
    search(folder.path(), report).await
}

/// Imports a file with the program, in a process of its own, and reports its rate and memory.
fn import(folder: &Path, entity: &str, file: &Path, report: &mut Report) -> Result<()> {
    let records = lines(file)?.count();
    let program = std::env::current_exe()?.with_file_name("unisono");
    let began = Instant::now();
    let mut child = Command::new(program)
        .args([
            "import",
            entity,
            &file.display().to_string(),
            "--config",
            "unisono.toml",
            "--data",
            "data",
            "--json",
        ])
        .current_dir(folder)
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut peak: f64 = 0.0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak = peak.max(high_water(child.id()));
        std::thread::sleep(Duration::from_millis(20));
    };
    let took = began.elapsed().as_secs_f64();
    let summary = child.wait_with_output()?.stdout;
    if !status.success() {
        return Err(format!("import failed: {status}").into());
    }
    let wanted = if entity == "product" { "20,000/s or more" } else { "" };
    let told = String::from_utf8_lossy(&summary).lines().last().unwrap_or_default().to_owned();
    println!("    {told}");
    let figure = format!(
        "{:.0} records/s, whole process {}",
        rate_of(&told).unwrap_or(records as f64 / took),
        time(took)
    );
    report.single(&format!("import of {records} {entity} records"), figure, wanted);
    report.single(
        &format!("import of {entity}, peak memory"),
        format!("{peak:.0} MB"),
        "under 300 MB",
    );
    Ok(())
}

/// The rate that the summary of an import tells.
fn rate_of(summary: &str) -> Option<f64> {
    serde_json::from_str::<serde_json::Value>(summary).ok()?.get("records_per_second")?.as_f64()
}

fn high_water(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Searches over the imported products, through HTTP, one after another.
async fn search(folder: &Path, report: &mut Report) -> Result<()> {
    let address: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let program = std::env::current_exe()?.with_file_name("unisono");
    let mut child = Command::new(program)
        .args([
            "serve",
            "--config",
            "unisono.toml",
            "--data",
            "data",
            "--log",
            "warn",
            "--listen",
            &address.to_string(),
        ])
        .current_dir(folder)
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(address).is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let query = |_: usize, n: u64| {
        let words = SEARCHES[n as usize % SEARCHES.len()].replace(' ', "%20");
        load::get(&format!("/v1/product?q={words}&limit=20"))
    };
    let seen = load::run(address, 1, Duration::from_secs(3), query).await;
    // It is ended whatever the searches said.
    let _ = child.kill();
    let _ = child.wait();
    let times = seen?.times;
    let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    let figure = format!("{} (p99 {})", time(middle(&times)), time(quantile(&seconds, 0.99)));
    report.single("search over 92,331 products through HTTP, p50", figure, "under 5 ms");
    Ok(())
}
