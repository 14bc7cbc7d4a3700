//! `unisono events`: append to streams, read and follow them.

use std::io::Read as _;
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::core::{Error, Result};

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::Target;
use crate::terminal::text;

/// How long following waits when nothing has come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Append to streams of events, read and follow them
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Append events to the end of a stream
    Append {
        /// The type of the stream
        #[arg(value_name = "TYPE")]
        ty: String,
        /// The name of the stream
        stream: String,
        /// An event as a JSON object with `type` and `data`, or a list of them; `-` to read it from standard input
        #[arg(value_name = "EVENTS")]
        events: String,
        /// Refuse unless the last event has this revision: a number, any, none or exists
        #[arg(long, value_name = "REVISION", default_value = "any")]
        expected: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Read a stream, or the events of all streams of a type
    Read {
        /// The type of the streams
        #[arg(value_name = "TYPE")]
        ty: String,
        /// The name of the stream; without it, events of all in the order of the log
        stream: Option<String>,
        /// From this revision of the stream on
        #[arg(long, value_name = "REVISION", requires = "stream")]
        from: Option<u64>,
        /// The newest first
        #[arg(long)]
        backward: bool,
        /// How many events at most
        #[arg(long, value_name = "EVENTS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        #[command(flatten)]
        connect: Connect,
    },
    /// Show the events of a type of streams, and then those that come, until Ctrl-C
    Follow {
        /// The type of the streams
        #[arg(value_name = "TYPE")]
        ty: String,
        /// Behind this position; from the first event on if not given
        #[arg(long, value_name = "POSITION")]
        after: Option<String>,
        #[command(flatten)]
        connect: Connect,
    },
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    match args.what {
        What::Append { ty, stream, events, expected, connect } => {
            let body = json!({"events": parse(&events)?, "expected_revision": expected});
            let work = async |t: &dyn Target| t.append(&ty, &stream, &body).await;
            let appended = session.on_target(&connect, work).await?;
            match session.output.is_json() {
                true => session.output.json(&appended)?,
                false => session
                    .output
                    .line(format_args!("appended at revision {}", appended["revision"]))?,
            }
        }
        What::Read { ty, stream, from, backward, limit, connect } => {
            let mut parameters = vec![("limit".to_owned(), limit.to_string())];
            parameters.extend(from.map(|from| ("from".to_owned(), from.to_string())));
            if backward {
                parameters.push(("direction".to_owned(), "backward".to_owned()));
            }
            let work = async |t: &dyn Target| t.events(&ty, stream.as_deref(), &parameters).await;
            show(&session.on_target(&connect, work).await?, session)?;
        }
        What::Follow { ty, after, connect } => {
            let work = async |t: &dyn Target| follow(&ty, after.clone(), t, session).await;
            match session.on_target(&connect, work).await {
                // Ctrl-C is how following ends.
                Err(_) if session.interrupt.asked() => {}
                result => result?,
            }
        }
    }
    Ok(exit::OK)
}

async fn follow(
    ty: &str,
    after: Option<String>,
    target: &dyn Target,
    session: &Session,
) -> Result<()> {
    let mut after = after.unwrap_or_else(|| "0".to_owned());
    loop {
        let parameters = [("limit", "1000".to_owned()), ("after", after.clone())];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value));
        let page = target.events(ty, None, &parameters).await?;
        show(&page, session)?;
        if let Some(position) = page["position"].as_str() {
            position.clone_into(&mut after);
        }
        if page["next"].is_null() {
            session.runtime.sleep(LOOK_EVERY).await;
        }
    }
}

fn parse(events: &str) -> Result<Json> {
    let mut text = String::new();
    if events == "-" {
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|e| Error::invalid("standard input cannot be read").caused_by(e))?;
    } else {
        events.clone_into(&mut text);
    }
    let json: Json = serde_json::from_str(&text)
        .map_err(|e| Error::invalid("the events are not valid JSON").with("reason", e))?;
    Ok(if json.is_array() { json } else { Json::Array(vec![json]) })
}

fn show(page: &Json, session: &Session) -> Result<()> {
    for event in page["items"].as_array().into_iter().flatten() {
        if session.output.is_json() {
            session.output.json(event)?;
            continue;
        }
        let of = |name: &str| event.get(name).map(text::cell).unwrap_or_default();
        session.output.line(format_args!(
            "{:>8}  {}  {}/{}  {}  {}",
            of("position"),
            of("time"),
            of("stream"),
            of("revision"),
            of("type"),
            event["data"]
        ))?;
    }
    Ok(())
}
