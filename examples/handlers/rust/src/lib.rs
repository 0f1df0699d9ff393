//! The quickstart's handler: takes orders, checks them, adds the total and a priority, and publishes them onward.
//! Called by the host, once for each event. Absent on purpose: state. An instance may be replaced at any time.

mod order;

use order::Order;
use whimbrel_sdk::handler::{DeliveryInfo, Event, Outcome, PublishError, publish};
use whimbrel_sdk::{export_handler, log};

/// Where enriched orders go, on the broker the order came from.
const ENRICHED_TOPIC: &str = "orders-enriched";

/// Handles one order.
///
/// Delivery is at least once, so the same order may come again. The enriched one carries the event's id: whoever receives
/// it twice can tell.
///
/// # Errors
/// This app may not publish where it should. Like a retry, with a reason that an operator reads.
#[allow(clippy::needless_pass_by_value, reason = "the contract hands the event over")]
pub fn handle(event: Event, info: DeliveryInfo) -> Result<Outcome, String> {
    let order = match Order::parse(&event.data) {
        Ok(order) => order,
        Err(reason) => {
            // It will be no better next time: to the dead-letter topic, if there is one. The log never shows the data.
            log::warn(&format!("event {}: {reason}", event.id));
            return Ok(Outcome::Drop);
        }
    };
    let enriched = order.enrich();
    let metadata = [("cloudevent.id", event.id.as_str()), ("cloudevent.type", "order.enriched")];
    match publish(&info.pubsub_name, ENRICHED_TOPIC, &enriched, "application/json", &metadata) {
        Ok(()) => Ok(Outcome::Success),
        // The broker did not confirm: the order stays un-acknowledged and comes again.
        Err(PublishError::Failed(_)) => Ok(Outcome::Retry),
        Err(error) => Err(format!("publishing to {ENRICHED_TOPIC}: {error:?}")),
    }
}

export_handler!(crate::handle);

#[cfg(test)]
mod tests;
