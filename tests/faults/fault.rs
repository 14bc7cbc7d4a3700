//! The faults: how each one begins and ends, and what must be seen of it.

use std::time::Duration;

use unisono_testkit::proxy::{Network, Proxy};

use crate::site::Site;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Killed,
    Paused,
    Cut,
    Delayed,
    HalfOpen,
    DiskFull,
    Wiped,
    Restored,
    Revoked,
    Stuck,
}

impl Fault {
    pub(crate) const ALL: [Fault; 9] = [
        Fault::Killed,
        Fault::Paused,
        Fault::Cut,
        Fault::Delayed,
        Fault::HalfOpen,
        Fault::DiskFull,
        Fault::Wiped,
        Fault::Restored,
        Fault::Revoked,
    ];

    /// Those of a truth: its data must stay.
    pub(crate) const OF_TRUTH: [Fault; 4] =
        [Fault::Killed, Fault::Paused, Fault::Cut, Fault::HalfOpen];

    /// Its row in the table, and what `--fault` names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Killed => "killed",
            Fault::Paused => "paused",
            Fault::Cut => "cut",
            Fault::Delayed => "delayed",
            Fault::HalfOpen => "half-open",
            Fault::DiskFull => "disk full",
            Fault::Wiped => "wiped",
            Fault::Restored => "restored",
            Fault::Revoked => "revoked",
            Fault::Stuck => "stuck",
        }
    }

    /// What it is, for people.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Fault::Killed => {
                "`kill -9` of the server and all of its processes; started again 4 s later with its data"
            }
            Fault::Paused => "SIGSTOP for 20 s (a truth: 8 s), then SIGCONT",
            Fault::Cut => "every connection reset, and each new one, for 5 s",
            Fault::Delayed => "everything that is sent arrives 60 ms later, both ways, for 6 s",
            Fault::HalfOpen => {
                "connections stay and are made and nothing arrives, for 8 s; what lost something stays dead"
            }
            Fault::DiskFull => "no room left on the disk of the data for 15 s",
            Fault::Wiped => "the data deleted from outside while the server runs",
            Fault::Restored => {
                "the server killed and started with a copy of its data that is some seconds old (embedded: with the process)"
            }
            Fault::Revoked => "the user locked out and its sessions ended for 6 s",
            Fault::Stuck => {
                "a disk without room for so long that `/health/ready` fails: the source is up and its delivery makes no progress"
            }
        }
    }

    /// How long it lasts.
    pub(crate) fn lasts(self, of_truth: bool) -> Duration {
        Duration::from_millis(match self {
            Fault::Killed => 4000,
            Fault::Paused if of_truth => 8000,
            Fault::Paused => 20_000,
            Fault::Cut => 5000,
            Fault::Delayed => 6000,
            Fault::HalfOpen => 8000,
            // Some stores have room in files that they have already.
            Fault::DiskFull => 15_000,
            Fault::Wiped => 3000,
            Fault::Restored => 2500,
            Fault::Revoked => 6000,
            Fault::Stuck => 85_000,
        })
    }

    /// Whether it lasts long enough for status, readiness and metrics to tell of it. What was deleted or is older is
    /// put right as soon as it is noticed, and a slow network is none.
    pub(crate) fn is_told(self) -> bool {
        !matches!(self, Fault::Delayed | Fault::Wiped | Fault::Restored)
    }

    pub(crate) async fn begin(
        self,
        site: &Site,
        proxy: Option<&Proxy>,
        namespace: &str,
    ) -> Result<(), String> {
        match self {
            Fault::Killed => site.signal("KILL"),
            Fault::Paused => site.signal("STOP"),
            Fault::Cut => set(proxy, Network::Cut),
            Fault::Delayed => set(proxy, Network::Delayed(Duration::from_millis(60))),
            Fault::HalfOpen => set(proxy, Network::HalfOpen),
            Fault::DiskFull | Fault::Stuck => site.fill(),
            Fault::Wiped => site.wipe(namespace).await,
            Fault::Restored => site.copy(),
            Fault::Revoked => site.credentials(false),
        }
    }

    pub(crate) fn end(self, site: &Site, proxy: Option<&Proxy>) -> Result<(), String> {
        match self {
            Fault::Killed => site.restart(),
            Fault::Paused => site.signal("CONT"),
            Fault::Cut | Fault::Delayed | Fault::HalfOpen => set(proxy, Network::Whole),
            Fault::DiskFull | Fault::Stuck => site.free(),
            Fault::Wiped => Ok(()),
            Fault::Restored => site.restore(),
            Fault::Revoked => site.credentials(true),
        }
    }
}

fn set(proxy: Option<&Proxy>, network: Network) -> Result<(), String> {
    proxy.map(|p| p.set(network)).ok_or_else(|| "an embedded kind has no network".to_owned())
}
