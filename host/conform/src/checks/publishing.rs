//! Publishing: confirmed, counted, one bad message among good ones.

use bytes::Bytes;
use whimbrel_pubsub::BrokerError;

use super::{deposit, read, subscribe};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{ARRIVE_WAIT, Payload, Rig, number};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "D4",
        title: "confirms what is published",
        expects: "ten publishes, one after the other, are each answered with success",
        cause: "a missing permission, a topic that the broker does not make by itself (see `prepare`), a limit",
        read: read::PUBLISHING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(confirms(rig)),
    },
    Check {
        id: "D9",
        title: "publishes lists, one result for each message",
        expects: "a list of ten is answered with ten successes, and all ten arrive",
        cause: "results that are not in the order of the messages, or another number of them",
        read: read::PUBLISHING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(lists(rig)),
    },
    Check {
        id: "B10",
        title: "refuses one bad message of a list, and no other",
        expects: "of three messages the second is over the limit: only it fails, as `invalid` or `permanent`, and the connection goes on",
        cause: "one answer for the whole list, or a broker that closes the connection where the adapter could have looked at the size",
        read: read::PUBLISHING,
        needs: &[Need::Limit],
        bound: None,
        run: |rig| Box::pin(refuses_one(rig)),
    },
    Check {
        id: "C7",
        title: "stores what it has confirmed",
        expects: "everything that was answered with success is in the broker, byte for byte, as a client of its own reads it",
        cause: "success before the broker has answered, or an encoding of the adapter's own",
        read: read::PUBLISHING,
        needs: &[Need::Reader],
        bound: None,
        run: |rig| Box::pin(stores(rig)),
    },
];

/// A broker whose limit is beyond it is not tested at its limit.
const LIMIT_BYTES_MAX: u64 = 64 << 20;

async fn confirms(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    let publishing = async {
        for (index, payload) in Payload::numbered(0..10).into_iter().enumerate() {
            for result in instance.publish(&topic, vec![payload]).await {
                result.map_err(|error| Wrong::new(format!("publish {} of 10: {error}", index + 1)))?;
            }
        }
        Ok::<(), Wrong>(())
    };
    let taking = async {
        // What does not arrive is another check's.
        inbox.ack_numbers(0..10, ARRIVE_WAIT).await.ok();
        Ok(())
    };
    tokio::try_join!(publishing, taking)?;
    Ok(Finding::Passed)
}

async fn lists(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 20).await?;
    let publishing = instance.publish(&topic, Payload::numbered(0..10));
    let (results, taken) = tokio::join!(publishing, inbox.ack_numbers(0..10, ARRIVE_WAIT));
    let failures: Vec<BrokerError> = results.into_iter().filter_map(Result::err).collect();
    if let Some(first) = failures.first() {
        return Err(Wrong::new(format!("{} of 10 failed: {first}", failures.len())));
    }
    taken?;
    Ok(Finding::Passed)
}

async fn refuses_one(rig: &Rig) -> Tested {
    let limit = rig.profile().message_bytes_max(&rig.features()).unwrap_or_default();
    let Some(size) = usize::try_from(limit + 1).ok().filter(|_| limit <= LIMIT_BYTES_MAX) else {
        return Ok(Finding::NotSupported(format!("the limit of {limit} bytes is too large to be tested")));
    };
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    let mut payloads = Payload::numbered(0..3);
    payloads[1].data = Bytes::from(vec![b'x'; size]);
    let results = instance.publish(&topic, payloads).await;
    match &results[..] {
        [Ok(()), Err(BrokerError::Invalid(_) | BrokerError::Permanent(_)), Ok(())] => {}
        [Ok(()), Ok(()), Ok(())] => return Err(Wrong::of("S4", format!("a message of {size} bytes was confirmed"))),
        results if results.iter().all(|result| matches!(result, Err(BrokerError::Unknown(_)))) => {
            return Err(Wrong::of("D9", "of a list of three no result is known"));
        }
        [first, second, third] => {
            let show = |result: &Result<(), BrokerError>| match result {
                Ok(()) => "success".to_owned(),
                Err(error) => format!("{error:?}"),
            };
            let answers = [show(first), show(second), show(third)].join("; ");
            return Err(Wrong::new(format!("the answers to good, {size} bytes, good: {answers}")));
        }
        other => return Err(Wrong::of("D9", format!("{} results for 3 messages", other.len()))),
    }
    inbox.ack_numbers([0, 2], ARRIVE_WAIT).await?;
    deposit(&instance, &topic, Payload::numbered(3..4)).await.map_err(Wrong::own)?;
    let after =
        inbox.next(ARRIVE_WAIT).await.ok_or_else(|| Wrong::of("D6", "what was published afterwards did not arrive"))?;
    match number(&after) {
        Ok(_) => Ok(Finding::Passed),
        Err(_) => Err(Wrong::new("the message over the limit was delivered")),
    }
}

async fn stores(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 50).await?;
    let payloads: Vec<Payload> = (0..20_u8).map(|number| Payload::of(vec![0, number, 255, 10])).collect();
    let publishing = deposit(&instance, &topic, payloads.clone());
    let taking = async {
        for arrived in inbox.take(payloads.len(), ARRIVE_WAIT).await {
            inbox.ack(&arrived).await?;
        }
        Ok(())
    };
    tokio::try_join!(publishing, taking)?;
    let stored = rig.stored(&topic).await?;
    let missing =
        payloads.iter().filter(|payload| !stored.iter().any(|stored| stored.data[..] == payload.data[..])).count();
    if missing > 0 {
        let what =
            format!("{missing} of 20 confirmed messages are not among the {} that the reader found", stored.len());
        return Err(Wrong::new(what));
    }
    Ok(Finding::Passed)
}
