//! The fake app: it writes down what it did before it says so, and fails in every way an app can.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::world::{Kind, MESSAGE, NUMBER, Shared, TOKEN, entry};
use crate::{BatchJob, DeliveryInfo, HandlerError, HandlerJob, Outcome, Outcomes};

/// Serves one app's events, as many at once as come, one by one or in batches.
pub(super) async fn serve(
    world: Shared,
    app: String,
    mut jobs: mpsc::Receiver<HandlerJob>,
    mut batches: mpsc::Receiver<BatchJob>,
) {
    loop {
        tokio::select! {
            biased;
            Some(job) = jobs.recv() => {
                let plan = check(&world, &app, &job);
                tokio::spawn(handle(world.clone(), app.clone(), job, plan));
            }
            Some(batch) = batches.recv() => serve_batch(&world, &app, batch),
            else => return,
        }
    }
}

/// Each event of a batch as if it had come alone, and one answer for all.
fn serve_batch(world: &Shared, app: &str, batch: BatchJob) {
    world.lock().seen.batched += batch.entries.len() as u64;
    let (info, mut outcomes) = (batch.info, Vec::new());
    for entry in batch.entries {
        let (reply, outcome) = oneshot::channel();
        let info = DeliveryInfo {
            pubsub: info.pubsub.clone(),
            topic: info.topic.clone(),
            path: info.path.clone(),
            attempt: entry.attempt,
            last_attempt: info.last_attempt,
            metadata: entry.metadata,
            trace: info.trace,
        };
        let job = HandlerJob { event: entry.event, info, reply };
        // It is the batch's worker that vanishes, never that of one event.
        let plan = Some(check(world, app, &job)).filter(|plan| *plan != Plan::Vanish).unwrap_or(Plan::Fail);
        tokio::spawn(handle(world.clone(), app.to_owned(), job, plan));
        outcomes.push(outcome);
    }
    tokio::spawn(async move {
        let mut answers = Outcomes::new();
        for outcome in outcomes {
            answers.push(outcome.await.unwrap_or(Err(HandlerError::Gone)));
        }
        batch.reply.send(Ok(answers)).ok();
    });
}

/// How one attempt will go.
#[derive(Clone, Copy, PartialEq)]
enum Plan {
    Succeed,
    Refuse,
    AskAgain,
    Fail,
    /// An instance that traps: the pool names the event.
    Trap,
    /// A pool that ends.
    Vanish,
    /// Longer than any policy or drain waits.
    Hang,
}

async fn handle(world: Shared, app: String, job: HandlerJob, plan: Plan) {
    world.dawdle(Duration::from_millis(300)).await;
    if plan == Plan::Hang {
        tokio::time::sleep(Duration::from_secs(100)).await;
    }
    let number: u32 = entry(&job.info.metadata, NUMBER);
    let marked = ((app, job.info.topic.as_ref().to_owned()), number);
    let answer = {
        let mut world = world.lock();
        match plan {
            Plan::Succeed | Plan::Hang => {
                world.trace(&format!("handled {marked:?}"));
                world.succeeded.insert(marked);
                Ok(Outcome::Success)
            }
            Plan::Refuse => {
                world.refused.insert(marked);
                Ok(Outcome::Drop)
            }
            Plan::AskAgain => Ok(Outcome::Retry),
            Plan::Fail => Err(HandlerError::Status(500)),
            Plan::Trap => Err(HandlerError::Lost("unreachable".into())),
            Plan::Vanish => return,
        }
    };
    job.reply.send(answer).ok();
}

/// Checks what the host tells about an attempt, and draws how it goes.
fn check(world: &Shared, app: &str, job: &HandlerJob) -> Plan {
    let mut world = world.lock();
    let info = &job.info;
    let (number, message, token): (u32, u64, u64) =
        (entry(&info.metadata, NUMBER), entry(&info.metadata, MESSAGE), entry(&info.metadata, TOKEN));
    let key = (app.to_owned(), info.topic.as_ref().to_owned());
    world.trace(&format!("attempt {} of {number} at {key:?}, last {}", info.attempt, info.last_attempt));

    match world.published.get(&number) {
        None => world.violation(&format!("{number} was never published")),
        Some(Kind::Poison) => world.violation(&format!("{number} is no event, and was delivered as one")),
        Some(_) if job.event.id() != format!("event-{number}") => world.violation("another event under this number"),
        Some(_) => {}
    }
    let attempts_max = world.queues[&key].attempts_max;
    let handed = world.handed.get_mut(&token).expect("handed out");
    handed.attempts += 1;
    let (made, incarnation) = (handed.attempts, handed.incarnation);
    if attempts_max.is_some_and(|max| made > max || info.last_attempt != (made == max)) {
        world.violation(&format!("attempt {made} of {attempts_max:?} of token {token}, last {}", info.last_attempt));
    }
    let plan = draw(&mut world);
    let unfinished = world.unfinished.entry((key.clone(), message)).or_default();
    if plan == Plan::Vanish {
        *unfinished += 1;
    }
    let unfinished = *unfinished;
    // What the broker delivered and nobody began is no attempt.
    let begun = world.begun.entry((key.clone(), message)).or_default();
    *begun += u32::from(made == 1);
    let begun = *begun;
    if world.counts_known && info.attempt + unfinished < begun {
        world.violation(&format!("attempt {} of a message, {begun} deliveries of which were begun", info.attempt));
    }
    if plan != Plan::Succeed {
        world.seen.failed_attempts += 1;
    }
    let counts_known = world.counts_known;
    let before = world.last_attempt.insert((key, incarnation, message), (info.attempt, plan == Plan::Vanish));
    // Only what is not charged may have the same number again. (Where the broker does not count, courses of one message
    // that overlap after a lost connection cannot be told apart.)
    if let Some((last, same_allowed)) = before
        && counts_known
        && (info.attempt < last || (info.attempt == last && !same_allowed))
    {
        world.violation(&format!("attempt {} of message {message} follows attempt {last}", info.attempt));
    }
    plan
}

fn draw(world: &mut super::world::World) -> Plan {
    let thrown = world.rng.u8(..100);
    match thrown {
        _ if world.calm => Plan::Succeed,
        0..55 => Plan::Succeed,
        55..62 => Plan::Refuse,
        62..72 => Plan::AskAgain,
        72..84 => Plan::Fail,
        84..90 => Plan::Trap,
        90..95 => Plan::Vanish,
        _ => Plan::Hang,
    }
}
