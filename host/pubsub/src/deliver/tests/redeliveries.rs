//! `countRedeliveries`: the policy's attempts are those of all deliveries together.

use super::*;

const FAILED: Result<Outcome, HandlerError> = Err(HandlerError::Timeout);

/// A subscription with three attempts in all.
fn three(metadata: &[(&str, &str)], dead_letter_topic: Option<&str>) -> Ends {
    let declared = fakes::declared("t", dead_letter_topic, metadata);
    spine(TopicScopes::default(), constant(2, None), declared)
}

const COUNTED: [(&str, &str); 1] = [("countRedeliveries", "true")];

/// One message after its (count - 1)th delivery elsewhere: what the handler is told, and the verdict.
async fn numbered(count: u32, answers: &[Result<Outcome, HandlerError>], told: &[(u32, bool)], expect: Verdict) {
    let mut ends = three(&COUNTED, None);
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", Some(count))).await;
    assert_eq!(ends.answer(answers).await, told, "delivery {count}");
    assert_eq!(feed.verdict().await, (1, expect), "delivery {count}");
    assert!(ends.handler.try_recv().is_err(), "delivery {count}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_ends_its_host_each_time_has_an_end() {
    numbered(1, &[FAILED, FAILED, FAILED], &[(1, false), (2, false), (3, true)], Verdict::Ack).await;
    numbered(2, &[FAILED, FAILED], &[(2, false), (3, true)], Verdict::Ack).await;
    numbered(3, &[FAILED], &[(3, true)], Verdict::Ack).await;
    numbered(3, &[Ok(Outcome::Success)], &[(3, true)], Verdict::Ack).await;
    numbered(4, &[], &[], Verdict::Ack).await;
}

#[tokio::test(start_paused = true)]
async fn it_goes_to_the_dead_letter_topic_where_there_is_one() {
    let mut ends = three(&COUNTED, Some("dead"));
    let feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", Some(4))).await;
    let Some(BrokerJob::Publish(job)) = soon(ends.broker.recv()).await else { panic!("no dead letter") };
    assert_eq!(&*job.messages[0].topic, "dead");
    assert!(ends.handler.try_recv().is_err());
}

/// Without the setting, each delivery has all of them.
#[tokio::test(start_paused = true)]
async fn they_count_only_where_that_is_asked() {
    let mut ends = three(&[], None);
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", Some(9))).await;
    assert_eq!(ends.answer(&[FAILED, FAILED, FAILED]).await, [(9, false), (10, false), (11, true)]);
    assert_eq!(feed.verdict().await, (1, retry(60)));
}

/// Without a number of retries there is none to count against.
#[tokio::test(start_paused = true)]
async fn a_policy_without_a_number_has_no_end() {
    let mut ends = spine(TopicScopes::default(), Policies::default(), fakes::declared("t", None, &COUNTED));
    let mut feed = ends.feed().await;
    feed.deliver(fakes::arrived(1, "m", Some(9))).await;
    assert_eq!(ends.answer(&[FAILED]).await, [(9, true)]);
    assert_eq!(feed.verdict().await, (1, retry(60)));
}

/// What is no event comes again as often as one that fails, and no more.
#[tokio::test(start_paused = true)]
async fn poison_has_an_end() {
    let mut ends = three(&COUNTED, None);
    let mut feed = ends.feed().await;
    for (count, expect) in [(1, retry(1)), (2, retry(2)), (3, Verdict::Ack)] {
        let mut poison = fakes::arrived(1, "m", Some(count));
        poison.message.data = "no event".into();
        feed.deliver(poison).await;
        assert_eq!(feed.verdict().await, (1, expect), "delivery {count}");
    }
    assert!(ends.handler.try_recv().is_err());
}

/// Attempts that were not made do not count, however often the broker has delivered it.
#[tokio::test(start_paused = true)]
async fn what_is_not_charged_does_not_count() {
    let mut ends = three(&COUNTED, None);
    let mut feed = ends.feed().await;
    for count in 1..=5 {
        feed.deliver(fakes::arrived(1, "m", Some(count))).await;
        assert_eq!(ends.answer(&[Err(HandlerError::Gone)]).await, [(1, false)]);
        assert!(matches!(feed.verdict().await, (1, Verdict::Retry(_))));
    }
}
