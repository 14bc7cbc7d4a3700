//! One scenario: writers write, something breaks and is mended, and nobody else may notice.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use unisono::engine::verify::report::{Depth, VerifyOptions};
use unisono::{Registry, Unisono, config};
use unisono_core::{Consistency, ErrorKind};
use unisono_testkit::proxy::Proxy;

use crate::fault::Fault;
use crate::observer::{Look, Observer};
use crate::report::late;
use crate::site::{Site, namespace};
use crate::workload::{Ledger, Readers, Writers, preload};

/// How long a fault may go on before it is told.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
/// How far a follower that is well may be behind, in time.
const HEALTHY_WITHIN: Duration = Duration::from_secs(4);
/// How long one that was broken may take to be as the truth: some servers take a minute to start on a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// How much memory a scenario may take, in MiB: the log is the buffer. Indexes whose writers are opened again and again on
/// a full disk take most.
const MEMORY_MAX: u64 = 256;
/// A read may wait for a source that does not answer, and then asks another one.
const READ_MAX: Duration = Duration::from_secs(12);
/// How long the writers write before and after the fault.
const AROUND: Duration = Duration::from_millis(1500);
/// Closing with everything up.
const CLOSE_MAX: Duration = Duration::from_secs(15);
/// Records that are there before a follower is added.
const PRELOADED: usize = 1500;

/// What a scenario showed.
pub(crate) struct Shown {
    /// From the end of the fault until everything was as before, in seconds.
    pub(crate) settled: f64,
    /// What status said meanwhile.
    pub(crate) told: Option<String>,
    /// Acknowledged writes.
    pub(crate) writes: usize,
    /// Growth of memory, in MiB.
    pub(crate) memory: u64,
}

/// A place for the embedded sources, and the configuration over a site.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) namespace: String,
    pub(crate) proxy: Option<Proxy>,
    /// The source over the site, named `far`.
    pub(crate) far: String,
}

impl Place {
    pub(crate) async fn over(site: &Site) -> Result<Self, String> {
        let proxy = match &site.kind.server {
            Some(server) => Some(Proxy::start(server.port).await.map_err(|e| e.to_string())?),
            None => None,
        };
        let namespace = namespace();
        let port = proxy.as_ref().map_or(0, Proxy::port);
        let mut far = format!("kind = \"{}\"\n{}", site.kind.kind, site.options(&namespace, port)?);
        if proxy.is_some() {
            far += "connect_timeout = \"2s\"\nrequest_timeout = \"4s\"\n";
        }
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        Ok(Place { folder, namespace, proxy, far })
    }

    /// A truth named `main`, a follower in memory named `near`, and the one over the site if it is wanted.
    pub(crate) fn configuration(&self, far_as: Role, required: bool) -> String {
        let here = "kind = \"sqlite\"\npath = \"main.db\"\n";
        let (main, followers) = match far_as {
            Role::Absent => (here, "[{ source = \"near\" }]"),
            Role::Follower => (here, "[{ source = \"near\" }, { source = \"far\" }]"),
            Role::Truth => (self.far.as_str(), "[{ source = \"near\" }, { source = \"beside\" }]"),
        };
        let far = if far_as == Role::Truth { "" } else { &self.far };
        let far = if far.is_empty() {
            String::new()
        } else {
            format!("[sources.far]\nrequired = {required}\n{far}")
        };
        format!(
            "data = \"{}\"\n[sources.main]\n{main}[sources.near]\nkind = \"memory\"\n{far}\
             [sources.beside]\nkind = \"sqlite\"\npath = \"beside.db\"\n\
             [entities.item]\nkey = \"id\"\ntruth = \"main\"\nfollowers = {followers}\n\
             [entities.item.fields]\nid = \"string\"\nnumber = \"integer\"\ntext = \"string\"\n",
            self.folder.path().display()
        )
    }

    /// Opens it, though a server that has just been started may be slow at first.
    pub(crate) async fn settle_in(&self, far_as: Role) -> Result<Unisono, String> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            match self.open(far_as, true).await {
                Ok(unisono) => return Ok(unisono),
                Err(error) if Instant::now() > deadline => return Err(format!("{error:?}")),
                Err(error) if error.kind() == ErrorKind::Timeout => {}
                Err(error) => return Err(format!("{error:?}")),
            }
        }
    }

    pub(crate) async fn open(&self, far_as: Role, required: bool) -> unisono_core::Result<Unisono> {
        let text = self.configuration(far_as, required);
        let registry = Registry::builtin();
        let parsed = config::parse(&text, "faults.toml", &registry, &config::Process);
        let parsed = parsed.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        Unisono::open(parsed).await
    }
}

/// What the source over the site is for the entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing; it is declared all the same.
    Absent,
    Follower,
    Truth,
}

impl Role {
    /// The name of the source over the site.
    pub(crate) fn name(self) -> &'static str {
        if self == Role::Truth { "main" } else { "far" }
    }
}

/// Breaks a follower or the truth, and mends it.
pub(crate) async fn broken(
    site: &Site,
    fault: Fault,
    far_as: Role,
    seed: u64,
) -> Result<Shown, String> {
    let place = Place::over(site).await?;
    let unisono = place.settle_in(far_as).await?;
    let engine = unisono.engine().clone();
    let ledger = Arc::new(Ledger::default());
    let observer = Observer::start(&engine, &ledger).await?;
    observer.settled(SETTLED_WITHIN).await.map_err(|e| format!("before the fault: {e}"))?;
    let (_keep, current) = watch::channel(Some(engine.clone()));
    let writers = Writers::start(&current, &ledger, seed);
    let readers = Readers::start(&engine, consistency(far_as));
    tokio::time::sleep(AROUND).await;

    let began = Instant::now();
    if let Err(error) = fault.begin(site, place.proxy.as_ref(), &place.namespace).await {
        // The next scenario wants a server that works.
        let _ = fault.end(site, place.proxy.as_ref());
        return Err(error);
    }
    tokio::time::sleep(fault.lasts(far_as == Role::Truth)).await;
    if fault.is_told() {
        // On a busy machine it takes calls longer to fail.
        let tells = |look: &Look| look.tells_of(far_as);
        observer.until(TOLD_WITHIN, "status, readiness and metrics tell of it", tells).await?;
    }
    let ended = Instant::now();
    let acknowledged = ledger.newest();
    fault.end(site, place.proxy.as_ref())?;
    if far_as == Role::Truth {
        let resumed = |look: &Look| look.acknowledged > acknowledged;
        observer.until(SETTLED_WITHIN, "another write", resumed).await?;
    }
    tokio::time::sleep(AROUND).await;
    writers.stop().await?;
    observer.settled(SETTLED_WITHIN).await?;
    let settled = ended.elapsed().as_secs_f64();
    let longest = readers.stop().await?;
    let looks = observer.stop().await?;

    let window = Window { began, ended, looks: &looks };
    if longest > READ_MAX {
        return Err(late(format_args!("a read took {longest:?}")));
    }
    if far_as == Role::Follower {
        if let Some(failure) = ledger.failure() {
            return Err(format!("a write failed: {failure}"));
        }
        window.healthy_follower_kept_up()?;
    }
    let told = window.told(far_as);
    if fault == Fault::Delayed {
        window.moved("far")?;
    }
    if fault == Fault::Stuck {
        window.was_not_ready()?;
    }
    let memory = window.memory()?;
    let writes = agree(&unisono, &ledger).await?;
    close(unisono).await?;
    // The server is up; what stays behind in it is small.
    let _ = site.wipe(&place.namespace).await;
    Ok(Shown { settled, told, writes, memory })
}

/// A follower is added, removed and added again while writes go on.
pub(crate) async fn added_again(site: &Site, seed: u64) -> Result<Shown, String> {
    let place = Place::over(site).await?;
    let unisono = place.open(Role::Absent, false).await.map_err(|e| format!("{e:?}"))?;
    preload(unisono.engine(), PRELOADED, seed).await?;
    let nothing = || Ok::<(), String>(());
    let turns: [Turn<'_>; 3] =
        [(Role::Follower, &nothing), (Role::Absent, &nothing), (Role::Follower, &nothing)];
    reopened(site, &place, unisono, &turns, seed).await
}

/// An embedded follower comes back, with the process, as an older copy of itself.
pub(crate) async fn restored_at_rest(site: &Site, seed: u64) -> Result<Shown, String> {
    let place = Place::over(site).await?;
    let unisono = place.open(Role::Follower, true).await.map_err(|e| format!("{e:?}"))?;
    let copy = || site.copy();
    let restore = || site.restore();
    let turns: [Turn<'_>; 2] = [(Role::Follower, &copy), (Role::Follower, &restore)];
    reopened(site, &place, unisono, &turns, seed).await
}

/// What the source over the site is next, and what is done before, with everything closed.
type Turn<'a> = (Role, &'a dyn Fn() -> Result<(), String>);

/// Closes and opens again and again, while writers want to write.
async fn reopened(
    site: &Site,
    place: &Place,
    mut unisono: Unisono,
    turns: &[Turn<'_>],
    seed: u64,
) -> Result<Shown, String> {
    let ledger = Arc::new(Ledger::default());
    let (sender, current) = watch::channel(Some(unisono.engine().clone()));
    let writers = Writers::start(&current, &ledger, seed);
    for (role, before) in turns {
        tokio::time::sleep(AROUND).await;
        sender.send_replace(None);
        close(unisono).await?;
        before()?;
        unisono = place.open(*role, false).await.map_err(|e| format!("{e:?}"))?;
        sender.send_replace(Some(unisono.engine().clone()));
    }
    let ended = Instant::now();
    let observer = Observer::start(unisono.engine(), &ledger).await?;
    tokio::time::sleep(AROUND).await;
    writers.stop().await?;
    observer.settled(SETTLED_WITHIN).await?;
    let settled = ended.elapsed().as_secs_f64();
    let looks = observer.stop().await?;
    let memory = Window { began: ended, ended, looks: &looks }.memory()?;
    let writes = agree(&unisono, &ledger).await?;
    close(unisono).await?;
    let _ = site.wipe(&place.namespace).await;
    Ok(Shown { settled, told: None, writes, memory })
}

/// With the truth down, answers may be old, but there are some.
fn consistency(far_as: Role) -> Consistency {
    if far_as == Role::Truth { Consistency::Eventual } else { Consistency::Session }
}

/// Nothing that was acknowledged is lost, and every follower has what the truth has. Nothing is repaired.
async fn agree(unisono: &Unisono, ledger: &Ledger) -> Result<usize, String> {
    let engine = unisono.engine();
    let writes = ledger.check(engine).await?;
    let deep = VerifyOptions { depth: Depth::Deep, ..VerifyOptions::default() };
    let report = engine.verify(&deep, &|_| {}).await.map_err(|e| e.to_string())?;
    if !report.agrees() {
        return Err(format!("followers differ: {report:#?}"));
    }
    match engine.dead_letters().await.map_err(|e| e.to_string())?.first() {
        Some(letter) => Err(format!("there is a dead letter: {letter:?}")),
        None => Ok(writes),
    }
}

async fn close(unisono: Unisono) -> Result<(), String> {
    match tokio::time::timeout(CLOSE_MAX, unisono.close()).await {
        Ok(closed) => closed.map_err(|e| format!("closing: {e}")),
        Err(_) => Err(late(format_args!("closing took longer than {CLOSE_MAX:?}"))),
    }
}

/// What was seen, and when the fault was.
struct Window<'a> {
    began: Instant,
    ended: Instant,
    looks: &'a [Look],
}

impl Window<'_> {
    fn during(&self) -> impl Iterator<Item = &Look> {
        self.looks.iter().filter(|l| l.at >= self.began && l.at <= self.ended)
    }

    fn told(&self, far_as: Role) -> Option<String> {
        self.during().filter_map(|look| look.trouble(far_as)).last()
    }

    /// Readiness failed, and said whose delivery it is that makes no progress.
    fn was_not_ready(&self) -> Result<(), String> {
        let said = "to far makes no progress";
        match self.during().any(|l| l.ready.0 == 503 && l.ready.1.contains(said)) {
            true => Ok(()),
            false => {
                Err(format!("readiness did not fail: {:?}", self.during().last().map(|l| &l.ready)))
            }
        }
    }

    /// What was acknowledged some seconds before a look is in the follower that is well.
    fn healthy_follower_kept_up(&self) -> Result<(), String> {
        for look in self.looks {
            let due = look.at.checked_sub(HEALTHY_WITHIN);
            let earlier = self.looks.iter().rev().find(|l| due.is_some_and(|due| l.at <= due));
            let Some(earlier) = earlier else { continue };
            let position = look.position("near");
            if position < earlier.acknowledged {
                let by = earlier.acknowledged - position;
                return Err(late(format_args!(
                    "the other follower lagged: {by} changes after {HEALTHY_WITHIN:?}"
                )));
            }
        }
        Ok(())
    }

    fn moved(&self, source: &str) -> Result<(), String> {
        let first = self.during().map(|l| l.position(source)).next();
        let last = self.during().map(|l| l.position(source)).last();
        if first < last { Ok(()) } else { Err(format!("{source} stood still at {first:?}")) }
    }

    fn memory(&self) -> Result<u64, String> {
        let first = self.looks.first().map_or(0, |l| l.resident);
        let most = self.looks.iter().map(|l| l.resident).max().unwrap_or_default();
        let grown = most.saturating_sub(first);
        let slowest = self.looks.iter().map(|l| l.took).max().unwrap_or_default();
        match grown <= MEMORY_MAX {
            true => Ok(grown),
            false => Err(format!("memory grew by {grown} MiB (status took {slowest:?} at most)")),
        }
    }
}
