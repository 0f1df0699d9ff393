//! How many files and sockets the process may have open: as many as the system lets it, for the usual soft limit of
//! 1024 is less than the doors serve. Called once, at the start of `run`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More is of no use here, and some systems have none.
const WANTED: u64 = 65_536;

/// Raises the soft limit as far as the hard one lets it. Returns the limit that holds now.
pub(crate) fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None: there is no limit.
    let Some(now) = current.filter(|now| *now < WANTED) else { return current.unwrap_or(WANTED) };
    let most = maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
    match setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }) {
        Ok(()) => most,
        Err(error) => {
            tracing::warn!("open files stay limited to {now}: {error}");
            now
        }
    }
}
