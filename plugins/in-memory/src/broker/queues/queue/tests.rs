use super::*;
use crate::broker::room::{Room, size};
use whimbrel_sdk::Message;

const UNLIMITED: Limits = Limits { messages: usize::MAX, bytes: usize::MAX };

fn message(text: &str) -> Rc<Kept> {
    let data = text.as_bytes().to_vec();
    let message = Message { topic: "t".into(), key: None, data, metadata: Vec::new() };
    let bytes = size(&message);
    Rc::new(Room::default().keep(message, bytes, 1).expect("there is room"))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What is taken, as (id, count), with tokens from 1 in the order of the calls.
struct Case {
    queue: Queue,
    now: Instant,
    last_token: u64,
}

impl Case {
    fn new(limits: Limits, ids: impl IntoIterator<Item = u64>) -> Self {
        let mut queue = Queue::new(limits);
        for id in ids {
            queue.push(id, message("x"), None);
        }
        Self { queue, now: Instant::now(), last_token: 0 }
    }

    fn taken(&mut self, holder: HolderId) -> Vec<(u64, u32)> {
        self.queue.tidy(|| self.now);
        let mut taken = Vec::new();
        while let Some(next) = self.queue.take(holder, self.last_token + 1) {
            self.last_token += 1;
            taken.push((next.id, next.count));
        }
        taken
    }
}

#[test]
fn credit_bounds_what_is_taken_and_an_ack_gives_it_back() {
    let mut case = Case::new(UNLIMITED, 1..=5);
    let holder = case.queue.attach(2);
    assert_eq!(case.taken(holder), [(1, 1), (2, 1)]);
    assert_eq!(case.taken(holder), []);
    assert!(case.queue.ack(holder, 1));
    assert_eq!(case.taken(holder), [(3, 1)]);
    assert_eq!(case.queue.len(), 4);
}

#[test]
fn a_retried_message_waits_lets_others_pass_and_counts() {
    let mut case = Case::new(UNLIMITED, 1..=3);
    let holder = case.queue.attach(2);
    assert_eq!(case.taken(holder), [(1, 1), (2, 1)]);
    assert!(case.queue.retry(holder, 1, millis(10), || case.now));
    assert!(case.queue.ack(holder, 2));
    assert_eq!(case.taken(holder), [(3, 1)], "the one that waits holds its credit");
    assert_eq!(case.queue.next_due(), Some(case.now + millis(10)));
    assert!(case.queue.ack(holder, 3));
    case.now += millis(9);
    assert_eq!(case.taken(holder), []);
    case.now += millis(1);
    assert_eq!(case.taken(holder), [(1, 2)]);
    assert_eq!(case.queue.next_due(), None);
}

#[test]
fn a_message_that_always_fails_leaves_the_others_their_turn() {
    let mut case = Case::new(UNLIMITED, 1..=2);
    let holder = case.queue.attach(1);
    assert_eq!(case.taken(holder), [(1, 1)]);
    assert!(case.queue.retry(holder, 1, Duration::ZERO, || case.now));
    assert_eq!(case.taken(holder), [(2, 1)]);
}

#[test]
fn what_a_holder_leaves_behind_comes_again_in_order() {
    let mut case = Case::new(UNLIMITED, 1..=4);
    let (first, second) = (case.queue.attach(3), case.queue.attach(9));
    assert_eq!(case.taken(first), [(1, 1), (2, 1), (3, 1)]);
    assert!(case.queue.ack(first, 2));
    case.queue.detach(first);
    assert_eq!(case.taken(second), [(1, 2), (3, 2), (4, 1)]);
    assert_eq!(case.taken(first), [], "it is gone");
}

#[test]
fn a_retry_outlives_its_holder() {
    let mut case = Case::new(UNLIMITED, 1..=1);
    let (first, second) = (case.queue.attach(1), case.queue.attach(1));
    assert_eq!(case.taken(first), [(1, 1)]);
    assert!(case.queue.retry(first, 1, millis(5), || case.now));
    case.queue.detach(first);
    assert_eq!(case.taken(second), []);
    case.now += millis(5);
    assert_eq!(case.taken(second), [(1, 2)]);
}

#[test]
fn a_token_is_settled_once_and_by_its_holder() {
    let mut case = Case::new(UNLIMITED, 1..=1);
    let (first, second) = (case.queue.attach(1), case.queue.attach(1));
    assert_eq!(case.taken(first), [(1, 1)]);
    assert!(!case.queue.ack(second, 1));
    assert!(!case.queue.ack(first, 2));
    assert!(case.queue.ack(first, 1));
    assert!(!case.queue.ack(first, 1));
    assert!(!case.queue.retry(first, 1, Duration::ZERO, || case.now));
    assert_eq!((case.queue.len(), case.queue.bytes), (0, 0));
}

#[test]
fn expired_messages_are_dropped_while_they_wait_and_not_in_flight() {
    let mut case = Case::new(UNLIMITED, []);
    let expires = Some(case.now + millis(10));
    for (id, expires) in [(1, expires), (2, None), (3, expires)] {
        case.queue.push(id, message("x"), expires);
    }
    let holder = case.queue.attach(1);
    assert_eq!(case.taken(holder), [(1, 1)]);
    case.now += millis(10);
    assert!(case.queue.retry(holder, 1, Duration::ZERO, || case.now));
    assert_eq!(case.taken(holder), [(2, 1)], "3 expired in line, 1 when it came back");
    assert!(case.queue.ack(holder, 2));
    assert_eq!((case.taken(holder), case.queue.len(), case.queue.bytes), (vec![], 0, 0));
}

#[test]
fn a_full_queue_has_room_again_once_something_expired() {
    let check = |limits: Limits| {
        let mut case = Case::new(limits, [1]);
        case.queue.push(2, message("x"), Some(case.now + millis(1)));
        let bytes = size(&message("x"));
        assert!(!case.queue.has_room(bytes, || case.now), "{limits:?}");
        assert!(case.queue.has_room(bytes, || case.now + millis(1)), "{limits:?}");
        assert_eq!(case.queue.len(), 1);
    };
    check(Limits { messages: 2, bytes: usize::MAX });
    check(Limits { messages: usize::MAX, bytes: size(&message("x")) * 2 });
}

#[test]
fn waits_and_lifetimes_beyond_all_reason_do_no_harm() {
    let mut case = Case::new(UNLIMITED, [1]);
    let holder = case.queue.attach(1);
    assert_eq!(case.taken(holder), [(1, 1)]);
    assert!(case.queue.retry(holder, 1, Duration::MAX, || case.now));
    assert!(case.queue.next_due().is_some());
}

/// The simplest thing that could be right: one list, searched from the start each time.
#[derive(Default)]
struct Model {
    messages: Vec<ModelMessage>,
    holders: Vec<(HolderId, usize)>,
    next_place: u64,
}

struct ModelMessage {
    id: u64,
    place: u64,
    expires: Option<Instant>,
    count: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Ready,
    InFlight(HolderId, u64),
    Retrying(HolderId, Instant),
}

impl Model {
    fn place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    fn held(&self, holder: HolderId) -> usize {
        let holds = |message: &&ModelMessage| match message.state {
            State::InFlight(by, _) | State::Retrying(by, _) => by == holder,
            State::Ready => false,
        };
        self.messages.iter().filter(holds).count()
    }

    fn tidy(&mut self, now: Instant) {
        // Whatever is due joins the line in the order of its time, then of its place.
        loop {
            let due = self.messages.iter_mut().filter_map(|message| match message.state {
                State::Retrying(_, due) if due <= now => Some(((due, message.place), message)),
                _ => None,
            });
            let Some((_, message)) = due.min_by_key(|(order, _)| *order) else { break };
            self.next_place += 1;
            (message.state, message.place) = (State::Ready, self.next_place);
        }
        let expired = |message: &ModelMessage| message.expires.is_some_and(|expires| expires <= now);
        self.messages.retain(|message| message.state != State::Ready || !expired(message));
    }

    fn take(&mut self, holder: HolderId, max: usize, token: u64) -> Option<(u64, u32)> {
        if self.held(holder) >= max {
            return None;
        }
        let ready = self.messages.iter_mut().filter(|message| message.state == State::Ready);
        let first = ready.min_by_key(|message| message.place)?;
        first.state = State::InFlight(holder, token);
        first.count += 1;
        Some((first.id, first.count))
    }
}

#[test]
fn random_operations_agree_with_the_model() {
    for seed in 0..2_000 {
        run_seed(seed);
    }
}

/// A run of one seed. The ledger at its end: every message was acked, expired, or can still be taken.
fn run_seed(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut model = Model::default();
    let mut case = Case::new(UNLIMITED, []);
    let mut tokens: Vec<(HolderId, u64)> = Vec::new();
    for step in 0..120 {
        let context = format!("seed {seed} step {step}");
        match random.u8(0..14) {
            0..=4 => {
                let expires = random.bool().then(|| case.now + millis(random.u64(1..60)));
                let (id, place) = (step, model.place());
                case.queue.push(id, message("x"), expires);
                model.messages.push(ModelMessage { id, place, expires, count: 0, state: State::Ready });
            }
            5 => model.holders.push(attach(&mut case, random.usize(1..5))),
            6 if !model.holders.is_empty() => {
                let (holder, _) = model.holders.swap_remove(random.usize(..model.holders.len()));
                case.queue.detach(holder);
                for message in &mut model.messages {
                    if matches!(message.state, State::InFlight(by, _) if by == holder) {
                        message.state = State::Ready;
                    }
                }
            }
            7 => case.now += millis(random.u64(0..25)),
            8..=10 if !model.holders.is_empty() => {
                let (holder, max) = model.holders[random.usize(..model.holders.len())];
                take_and_compare(&mut case, &mut model, holder, max, &mut tokens, &context);
            }
            _ if !tokens.is_empty() => {
                // Sometimes one that was settled before.
                let (holder, token) = tokens[random.usize(..tokens.len())];
                let wait = random.bool().then(|| millis(random.u64(0..30)));
                settle_and_compare(&mut case, &mut model, holder, token, wait, &context);
            }
            _ => {}
        }
        assert_eq!(case.queue.len(), model.messages.len(), "{context}");
        assert_eq!(case.queue.bytes, model.messages.len() * size(&message("x")), "{context}");
    }
    drain_and_compare(&mut case, &mut model, &format!("seed {seed} at its end"));
}

fn attach(case: &mut Case, max: usize) -> (HolderId, usize) {
    (case.queue.attach(max), max)
}

fn take_and_compare(
    case: &mut Case,
    model: &mut Model,
    holder: HolderId,
    max: usize,
    tokens: &mut Vec<(HolderId, u64)>,
    context: &str,
) {
    let first_token = case.last_token + 1;
    let taken = case.taken(holder);
    model.tidy(case.now);
    let expected: Vec<_> = (first_token..).map_while(|token| model.take(holder, max, token)).collect();
    assert_eq!(taken, expected, "{context}");
    assert!(model.held(holder) <= max, "{context}");
    tokens.extend((first_token..=case.last_token).map(|token| (holder, token)));
}

fn settle_and_compare(
    case: &mut Case,
    model: &mut Model,
    holder: HolderId,
    token: u64,
    wait: Option<Duration>,
    context: &str,
) {
    let known = model.messages.iter().position(|message| message.state == State::InFlight(holder, token));
    let settled = match wait {
        None => case.queue.ack(holder, token),
        Some(wait) => case.queue.retry(holder, token, wait, || case.now),
    };
    assert_eq!(settled, known.is_some(), "{context}");
    match (known, wait) {
        (Some(index), None) => drop(model.messages.remove(index)),
        (Some(index), Some(wait)) => model.messages[index].state = State::Retrying(holder, case.now + wait),
        (None, _) => {}
    }
}

fn drain_and_compare(case: &mut Case, model: &mut Model, context: &str) {
    for (holder, _) in std::mem::take(&mut model.holders) {
        case.queue.detach(holder);
    }
    for message in &mut model.messages {
        if matches!(message.state, State::InFlight(..)) {
            message.state = State::Ready;
        }
    }
    case.now += millis(30);
    let (holder, max) = attach(case, usize::MAX);
    take_and_compare(case, model, holder, max, &mut Vec::new(), context);
    assert_eq!(model.held(holder), model.messages.len(), "{context}");
}
