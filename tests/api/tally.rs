//! Rows of the contract with Dapr's clients, looked at one by one: each that is wrong is named, and none hides another.
//! Called by the tables beside this.

use std::fmt::Debug;
use std::net::SocketAddr;

use anyhow::{Result, bail};

use crate::harness::app::{App, Seen};
use crate::harness::http;

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    looked_at: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// In this row this was found, and that is expected.
    #[allow(clippy::needless_pass_by_value, reason = "values made for the table stand in it as they are")]
    pub(crate) fn check<T: PartialEq + Debug>(&mut self, row: &str, found: T, expected: T) {
        self.looked_at += 1;
        if found != expected {
            self.wrong.push(format!("{row}: it is {found:?}, not {expected:?}"));
        }
    }

    /// The same of something that took some doing.
    pub(crate) fn check_all<T: PartialEq + Debug>(
        &mut self,
        found: impl IntoIterator<Item = (&'static str, Result<T>, T)>,
    ) {
        for (row, found, expected) in found {
            match found {
                Ok(found) => self.check(row, found, expected),
                Err(error) => self.wrong.push(format!("{row}: {error:#}")),
            }
        }
    }

    /// The end of the table.
    ///
    /// # Errors
    /// Every row that is wrong.
    pub(crate) fn end(self) -> Result<()> {
        if self.wrong.is_empty() {
            return Ok(());
        }
        bail!("{} of {} rows are wrong:\n{}", self.wrong.len(), self.looked_at, self.wrong.join("\n"))
    }
}

/// What becomes of an event that an app answers in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The app was asked so often, and that was that.
    Done(usize),
    /// The app was asked so often, and then the event went to the dead-letter topic.
    Dead(usize),
}

/// Publishes `1` to a topic of an in-memory broker (as Dapr's) whose subscription has the route `/TOPIC` and the dead-letter
/// topic `dead-TOPIC`, which goes to `/dead-TOPIC`; and says what becomes of it. Nothing is waited for: that broker takes
/// the next message of a topic when the one before is done with.
pub(crate) async fn fate(app: &App, at: SocketAddr, pubsub: &str, topic: &str) -> Result<Fate> {
    http::publish_ok(at, &format!("{pubsub}/{topic}"), "1").await?;
    http::publish_ok(at, &format!("{pubsub}/{topic}"), "2").await?;
    http::publish_ok(at, &format!("{pubsub}/dead-{topic}"), "0").await?;
    let of_first = |path: String| app.seen_on(&path).iter().filter(|seen| is_first(seen)).count();
    let attempts = of_first(format!("/{topic}"));
    match of_first(format!("/dead-{topic}")) {
        0 => Ok(Fate::Done(attempts)),
        1 => Ok(Fate::Dead(attempts)),
        more => bail!("{more} dead letters of one message"),
    }
}

fn is_first(seen: &Seen) -> bool {
    seen.data().is_ok_and(|data| data == 1) || seen.batch().is_ok_and(|batch| batch == [1])
}
