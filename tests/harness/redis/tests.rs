//! The broker of the tests keeps what it confirmed, and lets in who it should.

use super::*;
use crate::harness::run;

#[test]
fn keeps_every_confirmed_entry_through_kills() -> Result<()> {
    run(async |test| {
        let mut redis = Redis::start(test).await?;
        let mut confirmed = 0;
        for _ in 0..3 {
            let mut client = redis.client().await?;
            for n in 0..200 {
                let id: String = client.xadd("s", "*", &[("data", format!("{n}"))]).await?;
                assert!(id.contains('-'));
                confirmed += 1;
            }
            redis.kill().await?;
            assert!(redis.client().await.is_err(), "a killed Redis still answers");
            redis.start_again().await?;
        }
        assert_eq!(redis.entries("s").await?.len(), confirmed);
        Ok(())
    })
}

#[test]
fn lets_in_only_the_user_it_was_made_for() -> Result<()> {
    run(async |test| {
        let credentials = Credentials { user: "whimbrel".into(), password: "s3cret".into() };
        let redis = Redis::start_for(test, credentials).await?;
        let mut stranger =
            redis::Client::open(format!("redis://{}", redis.address()))?.get_multiplexed_async_connection().await?;
        let refused: Result<String, _> = redis::cmd("GET").arg("x").query_async(&mut stranger).await;
        assert!(refused.is_err(), "a stranger was let in");
        redis.client().await?.set::<_, _, ()>("x", "y").await?;
        Ok(())
    })
}
