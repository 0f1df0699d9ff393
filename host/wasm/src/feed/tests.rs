//! What goes into one settle call.

use tokio::time::Instant;
use whimbrel_pubsub::Verdict;

use super::*;

fn settle(token: u64) -> FeedJob {
    // Nobody waits for the answer here.
    FeedJob::Settle { token, verdict: Verdict::Ack, reply: oneshot::channel().0 }
}

/// One settlement, and some more in the same moment but later; how many the first call takes, and after how long.
async fn check(more: u64, enough: usize, expected: usize, wait: Duration) {
    let (jobs, mut queue) = mpsc::channel(JOBS_MAX);
    let coming = async {
        for token in 0..=more {
            jobs.send(settle(token)).await.unwrap();
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    };
    let started = Instant::now();
    let mut waiting = Vec::new();
    let taken = tokio::select! { biased;
        taken = take(&mut queue, &mut waiting, enough) => taken,
        () = coming => 0,
    };
    assert_eq!((taken, waiting.len()), (expected, expected), "{more} more, enough is {enough}");
    // The clock moves only when nobody has anything to do, and by whole milliseconds.
    let elapsed = started.elapsed();
    assert!((wait..=wait * 2).contains(&elapsed), "{more} more, enough is {enough}: {elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn few_wait_for_more_and_many_do_not() {
    check(0, 25, 1, LINGER).await;
    check(4, 25, 5, LINGER).await;
    check(9, 4, 4, Duration::ZERO).await;
    check(9, 1, 1, Duration::ZERO).await;
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
