//! The conformance kit: runs one adapter, in the host that would run it anyway, against a live broker, and says which
//! promises of the contract it keeps.
//!
//! Called by `whimbrel conform`. [`run`] is the spine. What the adapter declares and what its profile says select the
//! checks; a check tests one promise and blames the check that is about another one when that is what it meets. Absent on
//! purpose: files and arguments (the binary's), wasmtime, brokers' protocols.

mod check;
mod checks;
mod control;
mod faults;
mod ledger;
mod profile;
pub mod proxy;
mod report;
mod rig;
pub mod scale;
pub mod wait;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use whimbrel_wasm::Adapter;

use check::{Check, Finding};
pub use profile::Profile;
pub use report::{Outcome, Report, Verdict};
use rig::{Bench, Rig};

/// Checks that run at the same time: most of what they do is to wait, each on topics of its own.
const CHECKS_AT_ONCE: usize = 4;

/// How long a check may take, besides what the broker's lease makes it wait.
const CHECK_WAIT: Duration = Duration::from_secs(60);

/// Leases that a check may wait for.
const CHECK_LEASES: u32 = 8;

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The checks that break things, too.
    pub faults: bool,
    /// Only the checks with these ids, in upper case; empty: all.
    pub only: Vec<String>,
    /// What the faults are drawn with; none: any. The report tells it.
    pub seed: Option<u64>,
}

/// The ids of all checks there are, for whoever asks for some.
#[must_use]
pub fn ids() -> Vec<&'static str> {
    all(true).iter().map(|check| check.id).collect()
}

/// Judges an adapter. `tell` hears of each check as it ends, in order.
pub async fn run(profile: Profile, adapter: Adapter, options: &Options, mut tell: impl FnMut(&Verdict)) -> Report {
    let started = Instant::now();
    let secrets = profile.secrets();
    let bench = Arc::new(Bench::set_up(profile, adapter, options.seed.unwrap_or_else(|| fastrand::u64(..))).await);
    let mut report = Report::new(&bench, secrets);
    let wanted = |check: &&Check| options.only.is_empty() || options.only.iter().any(|id| id == check.id);
    let (base, faults) = (checks::base(), if options.faults { faults::all() } else { Vec::new() });
    let base = stream::iter(base.into_iter().filter(wanted)).map(|check| judge(check, &bench)).buffered(CHECKS_AT_ONCE);
    // What breaks the broker has it to itself.
    let faults = stream::iter(faults.into_iter().filter(wanted)).map(|check| judge(check, &bench)).buffered(1);
    let mut verdicts = std::pin::pin!(base.chain(faults));
    while let Some(verdict) = verdicts.next().await {
        tell(report.take(verdict));
    }
    report.finish(started.elapsed());
    report
}

fn all(faults: bool) -> Vec<&'static Check> {
    let mut all = checks::base();
    if faults {
        all.extend(faults::all());
    }
    all
}

/// Runs one check, if the adapter and its broker have what it needs, within its bound.
async fn judge(check: &'static Check, bench: &Arc<Bench>) -> Verdict {
    let started = Instant::now();
    let finding = match bench.excuse(check) {
        Some(finding) => finding,
        None => {
            let rig = Rig::new(Arc::clone(bench), check.id);
            let bound =
                scale::scaled_time(check.bound.unwrap_or(CHECK_WAIT)) + bench.profile.conformance.lease * CHECK_LEASES;
            match tokio::time::timeout(bound, (check.run)(&rig)).await {
                Ok(Ok(finding)) => finding,
                Ok(Err(wrong)) => Finding::from(wrong),
                Err(_) => Finding::Failed(format!("it was not over after {} s", bound.as_secs())),
            }
        }
    };
    Verdict::new(check, finding, started.elapsed())
}
