//! A ledger that is fed a breach must tell it, by its kind; a clean run must not.

use super::*;

/// Ten messages, published and confirmed.
fn run(messages: u64) -> (Ledger, Vec<Sheet>) {
    let ledger = Ledger::new("S0", 7);
    let sheets: Vec<_> = (0..messages).map(|_| ledger.write("k", 200)).collect();
    for sheet in &sheets {
        ledger.sent(sheet.n);
        ledger.answered(sheet.n, &Ok(()));
    }
    (ledger, sheets)
}

fn deliver(ledger: &Ledger, sheet: &Sheet) {
    assert!(ledger.arrived(&sheet.data).is_some());
}

fn ack(ledger: &Ledger, sheet: &Sheet) {
    deliver(ledger, sheet);
    ledger.settled(sheet.n, Verdict::Ack, &Ok(()));
}

fn stored(sheets: &[Sheet]) -> Vec<Stored> {
    sheets.iter().map(|sheet| Stored { data: sheet.data.clone(), metadata: BTreeMap::new() }).collect()
}

/// What the books say when only the messages in `acked` were acknowledged and those in `kept` are in the broker.
fn check(before: impl Fn(&Ledger, &[Sheet]), acked: std::ops::Range<usize>, kept: usize, expect: &str) {
    let (ledger, sheets) = run(10);
    before(&ledger, &sheets);
    sheets[acked].iter().for_each(|sheet| ack(&ledger, sheet));
    let account = ledger.account(Some(&stored(&sheets[..kept])));
    let said = account.judge().map_or_else(|wrong| wrong.to_string(), |()| "clean".to_owned());
    assert!(said.contains(expect), "{expect:?} is not in {said:?}");
}

const NOTHING: fn(&Ledger, &[Sheet]) = |_, _| {};

#[test]
fn losses_are_told_by_their_kind() {
    check(NOTHING, 0..10, 10, "clean");
    check(NOTHING, 0..9, 9, "1: the broker does not have messages");
    check(NOTHING, 0..9, 10, "1: messages that the broker has were never delivered");
    check(|ledger, _| ledger.fault("cut"), 0..9, 9, "1: publishes were answered with success and never stored");
    check(|ledger, sheets| deliver(ledger, &sheets[9]), 0..9, 10, "1: messages were left unsettled");
    let retry = |ledger: &Ledger, sheets: &[Sheet]| {
        deliver(ledger, &sheets[9]);
        ledger.settled(9, Verdict::Retry(Duration::ZERO), &Ok(()));
    };
    check(retry, 0..9, 10, "1: messages were to be retried and never came again");
}

#[test]
fn what_nobody_published_is_a_phantom() {
    check(
        |ledger, _| assert!(ledger.arrived(b"S0-7 11 k 11 x").is_none()),
        0..10,
        10,
        "1: messages arrived that nobody",
    );
    check(|ledger, _| assert!(ledger.arrived(b"S0-8 1 k 1 x").is_none()), 0..10, 10, "1: messages arrived that nobody");
}

#[test]
fn what_was_refused_must_not_be_there() {
    let (ledger, mut sheets) = run(1);
    let refused = ledger.write("", 0);
    ledger.sent(refused.n);
    ledger.answered(refused.n, &Err(BrokerError::Invalid("no".to_owned())));
    ack(&ledger, &sheets[0]);
    assert_eq!(ledger.account(Some(&stored(&sheets))).judge(), Ok(()));
    sheets.push(refused);
    let wrong = ledger.account(Some(&stored(&sheets))).judge().unwrap_err().to_string();
    assert!(wrong.contains("refused for good"), "{wrong}");
}

#[test]
fn a_settlement_that_failed_leaves_it_open() {
    let (ledger, sheets) = run(1);
    deliver(&ledger, &sheets[0]);
    assert!(!ledger.quiet());
    assert_eq!(ledger.in_flight(), 1);
    // Whether it got through is not known: no loss, and no acknowledgement either.
    ledger.settled(0, Verdict::Ack, &Err(SettleError::Stale));
    assert_eq!((ledger.quiet(), ledger.acked_count()), (true, 0));
    assert_eq!(ledger.account(None).judge(), Ok(()));
    ack(&ledger, &sheets[0]);
    assert!(ledger.quiet());
    assert_eq!((ledger.in_flight(), ledger.account(None).duplicates), (0, 1));
}

#[test]
fn order_is_judged_until_one_is_retried() {
    let (ledger, sheets) = run(5);
    ack(&ledger, &sheets[1]);
    ack(&ledger, &sheets[0]);
    assert_eq!(ledger.disorder(), ["number 0 of key k came after number 1"]);
    deliver(&ledger, &sheets[4]);
    ledger.settled(4, Verdict::Retry(Duration::ZERO), &Ok(()));
    ack(&ledger, &sheets[2]);
    assert_eq!(ledger.disorder().len(), 1);
}

#[test]
fn changed_bytes_are_told_and_the_message_is_known() {
    let (ledger, sheets) = run(1);
    let mut data = sheets[0].data.clone();
    data[40] = 0xff;
    assert_eq!(ledger.arrived(&data), Some(Seen { n: 0, count: 1, key: "k".to_owned() }));
    assert!(ledger.account(None).to_string().contains("1 deliveries with changed bytes"));
}

#[test]
fn a_fault_that_strikes_nothing_proves_nothing() {
    let (ledger, sheets) = run(5);
    ledger.fault("busy");
    assert_eq!(ledger.account(None).too_weak(1, 5), None);
    sheets.iter().for_each(|sheet| ack(&ledger, sheet));
    (0..2).for_each(|_| ledger.fault("idle"));
    assert!(ledger.account(None).too_weak(1, 5).unwrap().contains("[0, 0, 5]"));
    assert!(ledger.account(None).too_weak(4, 0).is_some());
}
