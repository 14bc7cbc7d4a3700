//! How the changes of an entity reach its followers: `strategy`, `ack`, `ack_timeout` and `adaptive`, and what followers say
//! of their delivery.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::Ack;
use unisono_policy::ack::AckPolicy;
use unisono_policy::adaptive::AdaptivePolicy;
use unisono_policy::declaration::FollowerDeclaration;
use unisono_policy::delivery::{self, BatchPolicy, DeliveryPolicy};
use unisono_policy::rule::Rule;
use unisono_policy::strategy::{self, Contradiction, GivenFollower, Resolved, Strategy};
use unisono_policy::write::WritePolicy;

use crate::document::{Data, Item};
use crate::problem::{Report, Spot, meant};
use crate::sections::{ADAPTIVE, BATCH};
use crate::table::{Found, Table};

/// A follower as it is declared, and what of its delivery was given.
pub(crate) struct DeclaredFollower {
    pub(crate) declaration: FollowerDeclaration,
    pub(crate) given: Given,
}

/// What was given of a delivery, with the places of what can contradict.
pub(crate) struct Given {
    pub(crate) spot: Spot,
    /// Of `where`, `default` and `after`, those that are there.
    spots: Vec<(&'static str, Spot)>,
    filtered: bool,
    default: bool,
    after: Option<String>,
    priority: Option<i64>,
    batch: Option<BatchPolicy>,
}

/// How the changes of an entity reach its followers.
pub(crate) struct Replication {
    pub(crate) followers: Vec<FollowerDeclaration>,
    pub(crate) ack: AckPolicy,
    pub(crate) strategy: Option<&'static Strategy>,
    /// Set if that is `adaptive`.
    pub(crate) adaptive: Option<AdaptivePolicy>,
}

/// Reads what a follower says of its delivery.
pub(crate) fn given(table: &Table<'_>) -> Given {
    let item = |name| if table.takes(name) { table.item(name) } else { None };
    let place = |name| item(name).map(|found| (name, found.spot));
    let is_given = |name| item(name).is_some();
    let batch = table.table("batch", &BATCH).map(|batch| {
        let count = |name| batch.integer(name).and_then(|n| usize::try_from(n).ok());
        let (size, bytes, age) = (count("size"), count("bytes"), batch.duration("age"));
        batch.finish();
        BatchPolicy { size, bytes, age }
    });
    Given {
        spot: table.spot.clone(),
        spots: ["where", "default", "after", "batch"].into_iter().filter_map(place).collect(),
        filtered: is_given("where"),
        default: is_given("default") && table.boolean("default") == Some(true),
        after: is_given("after").then(|| table.text("after")).flatten().map(|found| found.value),
        priority: is_given("priority").then(|| table.integer("priority")).flatten(),
        batch,
    }
}

impl DeclaredFollower {
    /// As one that nobody waits for, and that waits for nobody.
    pub(crate) fn alone(self) -> FollowerDeclaration {
        let DeclaredFollower { declaration, given } = self;
        let (priority, batch) =
            (given.priority.unwrap_or_default(), given.batch.unwrap_or_default());
        FollowerDeclaration {
            delivery: DeliveryPolicy { after: None, priority, batch },
            ..declaration
        }
    }
}

impl Given {
    /// Where a field stands; the follower, if it does not.
    fn spot_of(&self, field: &str) -> &Spot {
        self.spots.iter().find(|(name, _)| *name == field).map_or(&self.spot, |(_, spot)| spot)
    }
}

/// Reads `ack`, `ack_timeout`, `strategy` and `adaptive`, and has them decide with what the followers say; `None` if a problem was
/// reported.
pub(crate) fn read(
    table: &Table<'_>,
    truth: Option<&Found<String>>,
    followers: Option<Vec<DeclaredFollower>>,
    write: Option<&WritePolicy>,
    regions: &dyn Fn(Option<&str>) -> Option<String>,
) -> Option<Replication> {
    let named = table.text("strategy");
    let strategy = named.as_ref().and_then(|found| strategy::find(&found.value));
    let timeout = table.duration("ack_timeout");
    let ack = table.item("ack");
    let adapts = strategy.is_some_and(|strategy| strategy.name == strategy::ADAPTIVE);
    let adaptive = adaptive(table, adapts, timeout);
    // Where one of these was reported, what is demanded could only be misjudged.
    let (truth, mut followers, write) = (&truth?.value, followers?, write?);
    let report = table.report;
    defaults(report, &mut followers)?;
    let sources: Vec<Arc<str>> =
        followers.iter().map(|f| Arc::clone(&f.declaration.source)).collect();
    let demanded = match &ack {
        None => None,
        Some(found) => Some(parse(report, found, truth, &sources)?),
    };
    let facts = facts(&followers, demanded, regions);
    let resolved = match (strategy, &named) {
        (Some(strategy), Some(found)) => (strategy.resolve)(&facts).map_err(|contradiction| {
            contradicts(table, &followers, found, &contradiction);
        }),
        _ => Ok(facts.resolve()),
    };
    let Resolved { ack: demanded, deliveries } = resolved.ok()?;
    for (follower, delivery) in followers.iter_mut().zip(deliveries) {
        follower.declaration.delivery = delivery;
    }
    let spot = ack.map(|found| found.spot).or(named.map(|found| found.spot));
    let ack = AckPolicy { ack: demanded, timeout };
    let spot = spot.unwrap_or_else(|| table.spot.clone());
    is_possible(report, &spot, &ack, write, &followers)?;
    let adaptive = adaptive?;
    is_quick(report, adaptive.as_ref(), &followers)?;
    in_order(report, &followers)?;
    let followers = followers.into_iter().map(|follower| follower.declaration).collect();
    Some(Replication { followers, ack, strategy, adaptive })
}

/// What `adaptive` goes by, if that is the strategy; `None` if a problem was reported.
fn adaptive(
    entity: &Table<'_>,
    adapts: bool,
    ack_timeout: Duration,
) -> Option<Option<AdaptivePolicy>> {
    let default = adapts.then(AdaptivePolicy::default);
    let Some(table) = entity.table("adaptive", &ADAPTIVE) else { return Some(default) };
    let [latency, lag, dwell] = ["latency", "lag", "dwell"].map(|name| table.duration(name));
    let (report, of_table, of_latency) =
        (table.report, table.spot.clone(), table.spot_of("latency"));
    table.finish();
    if !adapts {
        let message = "`adaptive` is for the strategy adaptive";
        report.error_with(&of_table, message, "set strategy = \"adaptive\", or remove it");
        return None;
    }
    if latency >= ack_timeout {
        let message = "a writer would wait for `ack_timeout` before a follower is too slow";
        let hint = "make `latency` shorter or `ack_timeout` longer";
        report.error_with(&of_latency, message, hint);
        return None;
    }
    Some(Some(AdaptivePolicy { latency, lag, dwell }))
}

/// Gives the follower that holds the rest its condition.
fn defaults(report: &Report<'_>, followers: &mut [DeclaredFollower]) -> Option<()> {
    let conditional = followers.iter().filter(|follower| follower.given.filtered);
    let conditions: Vec<_> = conditional.filter_map(|f| f.declaration.filter.clone()).collect();
    let mut found = false;
    for follower in followers.iter_mut().filter(|follower| follower.given.default) {
        let wrong = match (follower.given.filtered, found, conditions.is_empty()) {
            (true, ..) => Some(("`default` and `where` exclude each other", "remove one of them")),
            (_, true, _) => {
                Some(("another follower is the `default` already", "remove one of them"))
            }
            (.., true) => Some((
                "`default` is for what no follower with a `where` holds, and none has one",
                "give another follower a `where`, or remove it",
            )),
            _ => None,
        };
        if let Some((message, hint)) = wrong {
            report.error_with(follower.given.spot_of("default"), message, hint);
            return None;
        }
        let rest = Arc::new(Rule::none_of(conditions.clone()));
        follower.declaration.filter = Some(match follower.declaration.filter.take() {
            None => rest,
            // What residency forbids.
            Some(allowed) => Arc::new(Rule::all_of(vec![rest, allowed])),
        });
        found = true;
    }
    Some(())
}

fn facts(
    followers: &[DeclaredFollower],
    ack: Option<Ack>,
    regions: &dyn Fn(Option<&str>) -> Option<String>,
) -> strategy::Given {
    let follower = |follower: &DeclaredFollower| GivenFollower {
        source: Arc::clone(&follower.declaration.source),
        region: regions(Some(&follower.declaration.source)).map(Into::into),
        filtered: follower.given.filtered,
        default: follower.given.default,
        after: follower.given.after.as_deref().map(Into::into),
        priority: follower.given.priority,
        batch: follower.given.batch,
    };
    strategy::Given {
        ack,
        region: regions(None).map(Into::into),
        followers: followers.iter().map(follower).collect(),
    }
}

fn contradicts(
    table: &Table<'_>,
    followers: &[DeclaredFollower],
    strategy: &Found<String>,
    contradiction: &Contradiction,
) {
    let follower = contradiction.follower.and_then(|n| followers.get(n));
    let spot = match follower {
        Some(follower) => follower.given.spot_of(contradiction.field).clone(),
        None if contradiction.field == "ack" => table.spot_of("ack"),
        None => strategy.spot.clone(),
    };
    let message = format!("the strategy `{}` {}", strategy.value, contradiction.message);
    table.report.error_with(&spot, message, contradiction.hint);
}

/// What could never be acknowledged is not to be demanded.
fn is_possible(
    report: &Report<'_>,
    spot: &Spot,
    AckPolicy { ack, timeout }: &AckPolicy,
    write: &WritePolicy,
    followers: &[DeclaredFollower],
) -> Option<()> {
    if ack.is_truth() {
        return Some(());
    }
    if write.behind.is_some() {
        let message = "`ack` waits for followers, and `write_behind` answers before the truth";
        report.error_with(spot, message, "remove ack, or choose another strategy of writing");
        return None;
    }
    let may_wait = |source: &Arc<str>| match ack {
        Ack::Named(names) => names.contains(source),
        Ack::Truth | Ack::Count(_) | Ack::All => true,
    };
    let slow = followers.iter().find(|follower| {
        let FollowerDeclaration { source, delivery, .. } = &follower.declaration;
        may_wait(source) && delivery.batch.age >= *timeout
    });
    let Some(slow) = slow else { return Some(()) };
    let message = "changes gather here for as long as `ack_timeout`, and `ack` waits for them";
    let hint = "make `age` shorter or `ack_timeout` longer, or leave the follower out of `ack`";
    report.error_with(slow.given.spot_of("batch"), message, hint);
    None
}

/// A follower whose batches gather for longer than `adaptive` lets one take would make every writer wait too long.
fn is_quick(
    report: &Report<'_>,
    adaptive: Option<&AdaptivePolicy>,
    followers: &[DeclaredFollower],
) -> Option<()> {
    let Some(AdaptivePolicy { latency, .. }) = adaptive else { return Some(()) };
    let slow = followers.iter().find(|f| f.declaration.delivery.batch.age >= *latency);
    let Some(slow) = slow else { return Some(()) };
    let message = "changes gather here for as long as `latency` of `adaptive` lets a follower take";
    let hint = "make `age` shorter or `latency` longer";
    report.error_with(slow.given.spot_of("batch"), message, hint);
    None
}

/// Every follower comes after a follower, and none after itself.
fn in_order(report: &Report<'_>, followers: &[DeclaredFollower]) -> Option<()> {
    let names = || followers.iter().map(|f| f.declaration.source.as_ref());
    for follower in followers {
        let Some(after) = &follower.declaration.delivery.after else { continue };
        if !names().any(|name| *name == **after) {
            let hint = meant(after, names(), || {
                format!("its followers are {}", names().collect::<Vec<_>>().join(", "))
            });
            let message = format!("the entity has no follower `{after}`");
            report.error_with(follower.given.spot_of("after"), message, hint);
            return None;
        }
    }
    let declarations: Vec<_> = followers.iter().map(|f| f.declaration.clone()).collect();
    let Err(error) = delivery::in_order(&declarations) else { return Some(()) };
    let of_error = |f: &&DeclaredFollower| error.source_name() == Some(&*f.declaration.source);
    let stuck = followers.iter().find(of_error)?;
    let message = "comes `after` itself by way of the others, so none of them would begin";
    report.error_with(stuck.given.spot_of("after"), message, "remove one `after` of the circle");
    None
}

fn parse(
    report: &Report<'_>,
    found: &Found<&Item>,
    truth: &str,
    followers: &[Arc<str>],
) -> Option<Ack> {
    const TAKES: &str = "`ack` takes truth, all, a number of sources or a list of followers";
    match &found.value.data {
        Data::Broken => None,
        Data::Integer(count) => counted(report, &found.spot, *count, followers.len()),
        Data::Text { text, replaced: true } if text.parse::<i64>().is_ok() => {
            counted(report, &found.spot, text.parse().ok()?, followers.len())
        }
        Data::Text { text, .. } => match text.as_str() {
            "truth" => Some(Ack::Truth),
            "all" => Some(Ack::All),
            name => named(report, &found.spot, name, truth, followers)
                .map(|name| Ack::Named(vec![name])),
        },
        Data::List(items) if !items.is_empty() => {
            let name = |item: &Item| {
                let spot = Spot { span: item.span.clone(), key: found.spot.key.clone() };
                match &item.data {
                    Data::Text { text, .. } => named(report, &spot, text, truth, followers),
                    _ => {
                        report.error(&spot, format!("takes text, not {}", item.describe()));
                        None
                    }
                }
            };
            items.iter().map(name).collect::<Option<Vec<_>>>().map(Ack::Named)
        }
        _ => {
            report.error(&found.spot, format!("{TAKES}, not {}", found.value.describe()));
            None
        }
    }
}

fn counted(report: &Report<'_>, spot: &Spot, count: i64, followers: usize) -> Option<Ack> {
    let all = followers + 1;
    match usize::try_from(count) {
        Ok(count) if (1..=all).contains(&count) => Some(Ack::Count(count)),
        _ => {
            let message = format!("`ack` is {count}, and 1 to {all} sources keep the entity");
            report.error_with(
                spot,
                message,
                "the truth is one of them; add followers, or ask less",
            );
            None
        }
    }
}

fn named(
    report: &Report<'_>,
    spot: &Spot,
    name: &str,
    truth: &str,
    followers: &[Arc<str>],
) -> Option<Arc<str>> {
    let known = || followers.iter().map(|f| f.as_ref()).chain([truth]);
    if known().any(|one| one == name) {
        return Some(name.into());
    }
    let hint = meant(name, known().chain(Ack::WORDS), || {
        format!("it is kept in {}", known().collect::<Vec<_>>().join(", "))
    });
    report.error_with(spot, format!("the entity has no follower `{name}`"), hint);
    None
}
