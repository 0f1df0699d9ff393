//! What goes into one settle call.

use tokio::time::{Instant, sleep};
use whimbrel_pubsub::Verdict;

use super::*;

fn settle(token: u64) -> FeedJob {
    // Nobody waits for the answer here.
    FeedJob::Settle { token, verdict: Verdict::Ack, reply: oneshot::channel().0 }
}

/// Settlements that come one by one, so far apart; how many the first call takes, and after how long.
async fn check(gap: Duration, enough: usize, expected: usize, within: Duration) {
    let (jobs, mut queue) = mpsc::channel(JOBS_MAX);
    let coming = async move {
        for token in 0..100 {
            jobs.send(settle(token)).await.unwrap();
            sleep(gap).await;
        }
        std::future::pending::<()>().await;
    };
    let started = Instant::now();
    let mut waiting = Vec::new();
    let taken = tokio::select! { biased;
        taken = take(&mut queue, &mut waiting, enough) => taken,
        () = coming => 0,
    };
    assert_eq!((taken, waiting.len()), (expected, expected), "{gap:?} apart, enough is {enough}");
    assert!(started.elapsed() <= within, "{gap:?} apart, enough is {enough}: {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn few_wait_for_more_and_many_do_not() {
    let (soon, late) = (Duration::from_millis(1), Duration::from_secs(1));
    check(soon / 4, 25, 5, LINGER + soon).await;
    check(late, 25, 1, LINGER + soon).await;
    check(Duration::ZERO, 4, 4, Duration::ZERO).await;
    check(late, 1, 1, Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_waits_for_nothing() {
    let (jobs, mut queue) = mpsc::channel(JOBS_MAX);
    jobs.try_send(settle(1)).unwrap();
    jobs.try_send(FeedJob::Pause(oneshot::channel().0)).unwrap();
    let started = Instant::now();
    assert_eq!(take(&mut queue, &mut Vec::new(), 25).await, 2);
    assert_eq!(started.elapsed(), Duration::ZERO);
    drop(jobs);
    assert_eq!(take(&mut queue, &mut Vec::new(), 25).await, 0);
}
