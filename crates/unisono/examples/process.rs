//! A process with a timer: an order that is not paid in time is cancelled. Run it twice, and end it meanwhile: the timer
//! fires all the same, once. `cargo run -p unisono --example process`
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use unisono::core::outlet::{Begin, Manner};
use unisono::core::stream::{Expected, NewEvent};
use unisono::core::{ErrorKind, Position, Result};
use unisono::engine::stream::Appending;
use unisono::{Process, Recorded, Registry, Streams, Then, Timer, Unisono, config};

const CONFIGURATION: &str = r#"
[sources.main]
kind = "sqlite"
path = "process-example.db"
[streams.order]
truth = "main"
"#;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Order {
    Placed { total: i64 },
    Paid,
    Cancelled { because: String },
}

/// Waits until an order is paid, for five seconds.
#[derive(Default, Serialize, Deserialize)]
struct Payment {
    total: i64,
}

impl Process for Payment {
    type Event = Order;

    fn correlate(event: &Recorded<Order>) -> Option<String> {
        Some(event.event.stream.clone())
    }

    fn on_event(&mut self, event: Recorded<Order>, then: &mut Then) -> Result<()> {
        match event.value {
            Order::Placed { total } => {
                self.total = total;
                then.after("unpaid", Duration::from_secs(5), Json::Null);
            }
            Order::Paid => then.end(),
            Order::Cancelled { .. } => {}
        }
        Ok(())
    }

    fn on_timer(&mut self, _: Timer, then: &mut Then) -> Result<()> {
        let because = format!("{} were not paid in time", self.total);
        let cancelled = NewEvent::new("cancelled", json!({ "because": because }));
        then.append("order", Appending::to(then.key().to_owned(), vec![cancelled]));
        then.end();
        Ok(())
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let parsed = config::parse(CONFIGURATION, "example", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.map_err(|problems| problems.to_string())?;
    configuration.data = std::env::temp_dir();
    let unisono = Unisono::open(configuration).await?;
    let orders: Streams<Order> = unisono.streams("order")?;
    let manner = Manner { begin: Begin::First, ..Manner::default() };
    unisono.process::<Payment>("payment", &orders, manner).await?;

    let mut events = orders.subscribe(Position::ZERO);
    for (name, paid) in [("kim", true), ("lee", false)] {
        match orders.append(name, Expected::None, &[Order::Placed { total: 12 }]).await {
            Err(error) if error.kind() == ErrorKind::VersionConflict => println!("{name} was here"),
            placed => drop(placed?),
        }
        if paid {
            orders.append(name, Expected::Any, &[Order::Paid]).await?;
        }
    }
    println!("waiting for the order that nobody pays");
    let told = async {
        loop {
            let told = events.next().await?;
            println!("{} {:?}", told.event.stream, told.value);
            if matches!(told.value, Order::Cancelled { .. }) {
                return Ok::<(), unisono::core::Error>(());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await??;
    unisono.close().await?;
    Ok(())
}
