//! Tests of `route`.

use super::*;
use crate::fakes;

#[test]
fn every_event_takes_the_default_route() {
    let event = Event::structured("{}".into(), &Vec::new()).expect("an event");
    let mut declared = fakes::declared("t", None, &[]);
    assert_eq!(Routes::new(&declared).select(&event).as_deref(), Some("/in"));
    declared.default_route = Some(String::new());
    assert_eq!(Routes::new(&declared).select(&event).as_deref(), Some(""));
    declared.default_route = None;
    assert_eq!(Routes::new(&declared).select(&event), None);
}
