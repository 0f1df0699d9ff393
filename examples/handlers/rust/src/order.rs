//! An order: what is checked about it, and what is added. Called by the handler; knows no events.

use serde::{Deserialize, Serialize};

/// An order of this total or more goes first.
const HIGH_PRIORITY_TOTAL: f64 = 100.0;

/// An order as it was placed. Borrows from the event: most orders are read without a copy.
#[derive(Debug, Deserialize)]
pub(crate) struct Order<'a> {
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    item: std::borrow::Cow<'a, str>,
    quantity: u32,
    price: f64,
}

/// An order with what was worked out.
#[derive(Debug, Serialize)]
struct Enriched<'a> {
    id: &'a str,
    item: &'a str,
    quantity: u32,
    price: f64,
    total: f64,
    priority: &'static str,
}

impl<'a> Order<'a> {
    /// Reads and checks an order; the error says what is wrong with it.
    pub(crate) fn parse(data: &'a [u8]) -> Result<Self, String> {
        // The error's own text may quote the data, which is not for the log.
        let place =
            |error: serde_json::Error| format!("not an order, at line {} column {}", error.line(), error.column());
        let order: Self = serde_json::from_slice(data).map_err(place)?;
        let wrong = match &order {
            Self { id, .. } if id.is_empty() => "the id is empty",
            Self { item, .. } if item.is_empty() => "the item is empty",
            Self { quantity: 0, .. } => "the quantity is 0",
            Self { price, .. } if !(0.0..1e9).contains(price) => "the price is out of range",
            _ => return Ok(order),
        };
        Err(wrong.to_owned())
    }

    /// The order with its total, to the cent, and its priority, as JSON.
    pub(crate) fn enrich(&self) -> Vec<u8> {
        let total = (f64::from(self.quantity) * self.price * 100.0).round() / 100.0;
        let priority = if total >= HIGH_PRIORITY_TOTAL { "high" } else { "normal" };
        let Self { id, item, quantity, price } = self;
        let enriched = Enriched { id, item, quantity: *quantity, price: *price, total, priority };
        // Text and finite numbers always serialise.
        serde_json::to_vec(&enriched).unwrap_or_default()
    }
}
