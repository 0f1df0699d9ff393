//! The in-memory adapter holds its messages in the very instance that runs. So it is not replaced once it is in use, and
//! what was acknowledged is delivered.

use anyhow::Result;

use super::files::{Folder, TAKEN, edition, said, says};
use crate::harness::app::{App, Reply};
use crate::harness::{http, plugin, resource, run};

const KIND: &str = "pubsub.in-memory";

/// Messages that wait in the queue when the file comes.
const WAITING: usize = 50;

#[test]
fn what_it_holds_is_not_lost() -> Result<()> {
    run(async |test| {
        let folder = Folder::new(test)?;
        let app = App::start().await?;
        // At first it takes nothing.
        app.plan("/in", [Reply::word("RETRY")]);
        let plan = test.host("shop")?.resource(resource::queue("bus"))?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app);
        let host = folder.of(plan).start().await?;
        for n in 0..WAITING {
            http::publish_ok(host.http()?, "bus/t", &n.to_string()).await?;
        }
        folder.drop_in(KIND, &edition(plugin::in_memory(), 1)?)?;
        says(&host, "the running adapter is not durable", 1).await?;
        assert_eq!(said(&host, TAKEN), 0);
        app.take_seen();
        app.plan("/in", [Reply::ok()]);
        let seen = app.wait_for(WAITING, "/in").await?;
        let mut numbers = seen.iter().map(|seen| Ok(seen.data()?.as_u64())).collect::<Result<Vec<_>>>()?;
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), WAITING);
        http::publish_ok(host.http()?, "bus/t", "1").await
    })
}

#[test]
fn what_nobody_has_used_is_replaced() -> Result<()> {
    run(async |test| {
        let folder = Folder::new(test)?;
        let host = folder.of(test.host("shop")?.resource(resource::queue("bus"))?).start().await?;
        folder.drop_in(KIND, &edition(plugin::in_memory(), 1)?)?;
        says(&host, TAKEN, 1).await?;
        http::publish_ok(host.http()?, "bus/t", "1").await
    })
}
