//! Each topic's exchange, once for each connection.

use std::rc::Rc;

use whimbrel_sdk::{Failure, timer};

use super::{Letter, Publisher, in_time};
use crate::call::Call;
use crate::failure::Lost;
use crate::live::Live;
use crate::protocol::{Declare, Request};
use crate::topics::Topic;

impl Publisher {
    /// Declares what these letters need, and answers those whose topic is refused.
    pub(super) async fn declare_all(
        &self,
        live: &Rc<Live>,
        call: &Call,
        letters: &mut Vec<Letter>,
    ) -> Result<(), Failure> {
        let mut refused: Vec<(Rc<Topic>, Failure)> = Vec::new();
        for letter in letters.iter() {
            let topic = Rc::clone(&letter.topic);
            let known = |(known, _): &(Rc<Topic>, Failure)| Rc::ptr_eq(known, &topic);
            if topic.declared.get() == live.serial || refused.iter().any(known) {
                continue;
            }
            let over = || Failure::Transient(format!("topic {:?}: its exchange was not declared in time", topic.name));
            match in_time(call.until, self.declare(live, &topic)).await.ok_or_else(over)? {
                Ok(()) => {}
                // Another try, on another connection.
                Err(_) if live.is_ended() => return Ok(()),
                Err(failure) => refused.push((topic, failure)),
            }
        }
        for (topic, failure) in refused {
            letters.retain(|letter| {
                let refused = Rc::ptr_eq(&letter.topic, &topic);
                if refused {
                    call.settle(letter.index, Err(failure.clone()));
                }
                !refused
            });
        }
        Ok(())
    }

    async fn declare(&self, live: &Rc<Live>, topic: &Topic) -> Result<(), Failure> {
        let mut channel = self.declaring.lock().await;
        if topic.declared.get() == live.serial {
            return Ok(());
        }
        if let Some(failure) = topic.refused(timer::now()) {
            return Err(failure);
        }
        let what = format!("topic {:?}", topic.name);
        let usable = channel.take().filter(|channel| channel.live().is_ok_and(|other| Rc::ptr_eq(&other, live)));
        let usable = match usable {
            Some(usable) => usable,
            None => live.open(Box::new(|_| ())).await.map_err(|lost| lost.failure(&what))?,
        };
        let declared = &self.settings.declared;
        let declare = Declare { durable: declared.durable, auto_delete: declared.auto_delete };
        let request = Request::Exchange { name: &topic.name, kind: declared.exchange_kind, declare };
        let answer = usable.call(request).await;
        match answer {
            Ok(()) => topic.declared.set(live.serial),
            Err(lost) => {
                let failure = lost.failure(&what);
                if matches!(lost, Lost::Closed(_)) {
                    topic.refuse(timer::now(), failure.clone());
                }
                return Err(failure);
            }
        }
        *channel = Some(usable);
        Ok(())
    }
}
