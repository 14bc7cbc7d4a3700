//! `unisono demo`: a server with real data in one process, and what to try with it.

use std::io::Cursor;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use unisono::Registry;
use unisono::config::{self, Configuration, Process};
use unisono::core::{Error, Result};
use unisono::engine::Engine;

use super::serve;
use crate::exit;
use crate::import::lines::Lines;
use crate::import::resume::Resume;
use crate::import::{Import, Refusal};
use crate::open;
use crate::session::Session;
use crate::target::{Embedded, Target as _};
use crate::terminal::text;

/// Try Unisono: a server with real sample data in four stores, all in this process
///
/// The first start loads 2,000 products and 2,000 orders; later starts go on with the same data.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Print the configuration of the demo and end
    #[arg(long)]
    print_config: bool,
}

const CONFIGURATION: &str = include_str!("../demo.toml");
const DATA: &str = "unisono-data";
/// How long the first answer waits for followers.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);
const SAMPLE: [(&str, &[u8]); 2] = [
    ("product", include_bytes!("../../../../data/products.jsonl.gz")),
    ("order", include_bytes!("../../../../data/orders.jsonl.gz")),
];

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    if args.print_config {
        session.output.line(CONFIGURATION.trim_end())?;
        return Ok(exit::OK);
    }
    let mut configuration = configuration()?;
    configuration.data = PathBuf::from(DATA);
    configuration.server.listen = args.listen;
    let configuration = open::place(configuration, &session.common);
    let data = configuration.data.clone();
    serve::serve(configuration, None, session, async |engine, url| {
        load(engine, &data, session).await?;
        // What is printed next can be tried at once. A follower that stays behind is no reason not to serve.
        let _ = engine.wait_applied(&engine.head_token().await?, CATCH_UP_MAX).await;
        welcome(url, &data, session)
    })
    .await
}

fn configuration() -> Result<Configuration> {
    let registry = Registry::builtin();
    Ok(config::parse(CONFIGURATION, "demo.toml", &registry, &Process)?)
}

/// Loads the sample into entities that are empty, and goes on where an earlier start was stopped.
async fn load(engine: &Engine, data: &Path, session: &Session) -> Result<()> {
    let target = Embedded::new(engine.clone(), None);
    for (entity, bytes) in SAMPLE {
        let resume = Resume::of_bytes(&open::imports(data), entity, bytes);
        if resume.begun().is_none() && target.count(entity).await? > 0 {
            continue;
        }
        let import = Import {
            target: &target,
            entity,
            lines: Lines::new(Cursor::new(bytes))?,
            bytes: bytes.len() as u64,
            resume: Some(&resume),
            runtime: &session.runtime,
        };
        let mut progress = session.progress(entity);
        let mut refuse = |refusal: Refusal| Err(refusal.reason.with("line", refusal.line));
        let ended = import.run(&mut progress, &session.interrupt, &mut refuse).await?;
        let elapsed = text::duration(progress.elapsed());
        progress.finish();
        ended.stopped.map_or(Ok(()), Err::<(), Error>)?;
        let records = text::count(ended.done.records);
        session.output.line(format_args!("loaded {records} records of {entity} in {elapsed}"))?;
    }
    Ok(())
}

fn welcome(url: &str, data: &Path, session: &Session) -> Result<()> {
    let output = session.output;
    if output.is_json() {
        return output.json(&serde_json::json!({"url": url, "data": data}));
    }
    let data = data.display();
    output.line(format_args!(
        r#"
Unisono serves products and orders on {url}
  truth: SQLite   cache: memory   search: tantivy   archive: files      data: {data}

Read one product; the headers tell who answered, at which version and how old it is:
  curl -i {url}/v1/product/1082185

Change it, and the cache, the search index and the files follow:
  curl -X PATCH {url}/v1/product/1082185 --json '{{"price": "1.09"}}'

Search, filter and sort:
  curl '{url}/v1/product?q=banana*'
  curl '{url}/v1/product?department=eq.PRODUCE&price=lt.2.00&order=price.desc&limit=5'

The products sold most often, from the lines of the orders:
  curl {url}/v1/order/_aggregate --json '{{"unnest": "items", "group_by": ["items.product_id"],
    "metrics": {{"orders": "count", "amount": {{"sum": "items.amount"}}}}, "order": ["-orders"], "limit": 5}}'

Who changed it, and every change as it happens:
  curl {url}/v1/product/1082185/_history
  curl -N {url}/v1/changes

Prove that every store holds the same records:
  unisono verify --url {url}

More: {url}/docs   Ctrl-C ends; the next start goes on with the same data."#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_demo_has_no_problems() {
        let configuration = configuration().unwrap();
        assert!(configuration.warnings.0.is_empty(), "{}", configuration.warnings);
        for (entity, _) in SAMPLE {
            assert!(configuration.declaration.entities.contains_key(entity));
        }
    }

    #[test]
    fn the_sample_fits_the_entities_of_the_demo() {
        let configuration = configuration().unwrap();
        for (entity, bytes) in SAMPLE {
            let entity = &configuration.declaration.entities[entity].entity;
            let mut lines = Lines::new(Cursor::new(bytes)).unwrap();
            let lines = lines.batch(usize::MAX, usize::MAX).unwrap();
            assert_eq!(lines.len(), 2000);
            for line in lines {
                let record = unisono::core::json::parse_slice(entity, &line.text.unwrap()).unwrap();
                entity.check(&record).unwrap();
            }
        }
    }
}
