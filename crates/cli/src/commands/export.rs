//! `unisono export`: all records of an entity as JSON Lines, in the order of their keys.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use unisono::core::{Error, Result};

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::Target;
use crate::terminal::output::lost;
use crate::terminal::text;

/// Write all records of an entity as JSON Lines, in the order of their keys
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The entity
    entity: String,
    /// Compress
    #[arg(long)]
    gzip: bool,
    /// The file to write; standard output without it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    session.on_target(&args.connect, async |target| export(&args, target, session).await).await?;
    Ok(exit::OK)
}

async fn export(args: &Args, target: &dyn Target, session: &Session) -> Result<()> {
    let total = target.count(&args.entity).await?;
    // A file takes its name when it is complete, so that half an export is never taken for a whole one.
    let unfinished = args.output.as_ref().map(|path| path.with_added_extension("part"));
    let mut writer = Writer::open(unfinished.as_deref(), args.gzip)?;
    // Bars and records would mix on a terminal.
    let mut progress = args.output.is_some().then(|| session.progress(&args.entity));
    let (mut after, mut records) = (None, 0);
    loop {
        let page = target.export(&args.entity, after).await?;
        for record in &page.items {
            writer.line(record.get().as_bytes())?;
        }
        records += page.items.len() as u64;
        if let Some(progress) = &mut progress {
            progress.update(records, total, records);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    writer.finish()?;
    drop(progress);
    let (Some(unfinished), Some(path)) = (unfinished, &args.output) else { return Ok(()) };
    std::fs::rename(unfinished, path).map_err(lost)?;
    if session.output.is_json() {
        return session.output.json(&json!({"entity": args.entity, "records": records}));
    }
    session.output.line(format_args!("{}: {} records written", args.entity, text::count(records)))
}

/// Where the lines go.
enum Writer {
    Plain(BufWriter<Box<dyn Write + Send>>),
    Gzip(GzEncoder<BufWriter<Box<dyn Write + Send>>>),
}

impl Writer {
    fn open(path: Option<&std::path::Path>, gzip: bool) -> Result<Self> {
        let raw: Box<dyn Write + Send> = match path {
            Some(path) => Box::new(File::create(path).map_err(|e| {
                Error::invalid("the file cannot be written")
                    .with("file", path.display())
                    .caused_by(e)
            })?),
            None => Box::new(io::stdout()),
        };
        let buffered = BufWriter::with_capacity(256 << 10, raw);
        Ok(match gzip {
            true => Writer::Gzip(GzEncoder::new(buffered, Compression::default())),
            false => Writer::Plain(buffered),
        })
    }

    fn line(&mut self, text: &[u8]) -> Result<()> {
        let writer: &mut dyn Write = match self {
            Writer::Plain(writer) => writer,
            Writer::Gzip(writer) => writer,
        };
        writer.write_all(text).and_then(|()| writer.write_all(b"\n")).map_err(lost)
    }

    fn finish(self) -> Result<()> {
        let mut writer = match self {
            Writer::Plain(writer) => writer,
            Writer::Gzip(encoder) => encoder.finish().map_err(lost)?,
        };
        writer.flush().map_err(lost)
    }
}
