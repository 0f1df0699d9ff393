//! Librdkafka's mock cluster: faults that a real broker has in its own time only. It stores nothing of a request that it
//! fails, and does not look at the numbers of batches.

use super::groups::{Log, Worker, duplicates, numbers};
use super::harness::*;
use super::load::{Load, ledger};
use super::oracle;
use std::time::{Duration, Instant};
use whimbrel_sdk::{Adapter, Failure};

/// Kafka's numbers for errors, and librdkafka's for hanging up.
const HANGS_UP: &str = "-195";
const UNKNOWN: &str = "-1";
const UNKNOWN_TOPIC: &str = "3";
const NO_LEADER: &str = "5";
const NOT_LEADER: &str = "6";
const TIMED_OUT: &str = "7";
const LOADING: &str = "14";
const NO_COORDINATOR: &str = "15";
const NOT_COORDINATOR: &str = "16";
const FEW_REPLICAS: &str = "19";
const FEW_REPLICAS_AFTER_APPEND: &str = "20";
const OLD_GENERATION: &str = "22";
const UNKNOWN_MEMBER: &str = "25";
const REBALANCING: &str = "27";
const TOPIC_DENIED: &str = "29";
const GROUP_DENIED: &str = "30";
const STORAGE: &str = "56";
const FENCED: &str = "74";

const NODES: [&str; 3] = ["1", "2", "3"];

async fn mock(partitions: &str) -> Server {
    Server::mock(&["--nodes", "3", "--partitions", partitions]).await
}

/// How many requests of a kind there have been.
async fn count(server: &Server, api: &str) -> u32 {
    server.tell(&["count", api]).await.parse().unwrap()
}

/// A batch that was refused goes out again, in its place, and what was under way behind it.
#[test]
fn refused_batches_are_stored_once_and_in_order() {
    run(async {
        let server = mock("1").await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let errors =
            [FEW_REPLICAS, FEW_REPLICAS_AFTER_APPEND, NOT_LEADER, NO_LEADER, TIMED_OUT, STORAGE, UNKNOWN, HANGS_UP];
        for code in errors {
            let topic = &format!("error{code}");
            server.prepare(topic).await;
            bus.publish_numbers(topic, 0..1).await;
            let before = count(&server, "produce").await;
            server.tell(&["errors", "produce", code, code, code]).await;
            let call = |call: u32| {
                let numbers = (1 + call * 5..6 + call * 5).map(|number| message(topic, number.to_string().as_bytes()));
                bus.adapter.publish(numbers.collect(), SOON)
            };
            let results = futures::future::join_all((0..10).map(call)).await.concat();
            assert!(results.iter().all(Result::is_ok), "{code}: {results:?}");
            let stored = server.read(topic).await;
            let stored: Vec<u32> = stored.iter().map(|stored| stored.text().parse().unwrap()).collect();
            assert_eq!(stored, (0..51).collect::<Vec<_>>(), "{code}");
            // What was asked for has happened, and was not answered with a flood.
            let asked = count(&server, "produce").await - before;
            assert!((4..40).contains(&asked), "{code}: {asked} requests");
        }
    });
}

/// What is refused for good fails at its deadline with the broker's reason, is not asked for in a hot loop, and, where it
/// was said not to be stored, is not stored later.
#[test]
fn what_stays_refused_is_told_with_the_reason() {
    run(async {
        let server = mock("1").await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        for (code, reason) in
            [(FEW_REPLICAS, "replicas"), (NOT_LEADER, "leader"), (FEW_REPLICAS_AFTER_APPEND, "replicas")]
        {
            let topic = &format!("error{code}");
            server.prepare(topic).await;
            bus.publish(topic, b"before").await.unwrap();
            let before = count(&server, "produce").await;
            let many: Vec<&str> = ["errors", "produce"].into_iter().chain([code; 500]).collect();
            server.tell(&many).await;
            let result = bus.adapter.publish(vec![message(topic, b"x")], Duration::from_secs(3)).await.remove(0);
            let asked = count(&server, "produce").await - before;
            server.tell(&["well", "produce"]).await;
            let failure = result.unwrap_err();
            assert!(matches!(failure, Failure::Transient(_) | Failure::Unknown(_)), "{code}: {failure:?}");
            assert!(format!("{failure:?}").to_lowercase().contains(reason), "{code}: {failure:?}");
            assert!((2..60).contains(&asked), "{code}: {asked} requests in three seconds");
            bus.publish(topic, b"after").await.unwrap();
            let stored = server.read(topic).await;
            let of = |text: &str| stored.iter().filter(|stored| stored.text() == text).count();
            assert_eq!((of("before"), of("after")), (1, 1), "{code}");
            // What is not known may be stored, once.
            let at_most = usize::from(matches!(failure, Failure::Unknown(_)));
            assert!(of("x") <= at_most, "{code}: {failure:?}, and it is there {} times", of("x"));
        }
    });
}

/// Everything comes, once, whatever a fetch is answered with first.
#[test]
fn refused_fetches_cost_no_message() {
    run(async {
        let server = mock("2").await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        server.prepare("orders").await;
        let log = Log::default();
        let worker = Worker::start("one", bus.subscribe("orders", "app", 30).await, &log);
        let errors = [NOT_LEADER, NO_LEADER, FENCED, STORAGE, TIMED_OUT, UNKNOWN_TOPIC, UNKNOWN, HANGS_UP];
        for (round, code) in (0..).zip(errors) {
            let before = count(&server, "fetch").await;
            server.tell(&["errors", "fetch", code, code, code]).await;
            bus.publish_numbers("orders", round * 50..(round + 1) * 50).await;
            until("all is done", async || numbers(&log).len() == (round as usize + 1) * 50).await;
            let asked = count(&server, "fetch").await - before;
            assert!((3..200).contains(&asked), "{code}: {asked} requests");
        }
        assert_eq!(duplicates(&log), 0);
        worker.leave().await;
        assert_eq!(oracle::lag(&server, "orders", "app"), 0);
    });
}

/// Messages flow while something goes wrong, until all are done with.
async fn under_load(trouble: impl AsyncFnOnce(&Server, &Load, &Log)) -> (Server, Load, Log) {
    let server = mock("3").await;
    let bus = Bus::open(&server.host(), "i", &[]).await;
    server.prepare("orders").await;
    let (log, load) = (Log::default(), Load::default());
    let worker = Worker::start("one", bus.subscribe("orders", "app", 30).await, &log);
    let troubling = async {
        trouble(&server, &load, &log).await;
        load.end();
    };
    tokio::join!(load.run(&bus, "orders"), troubling);
    until("all is done", async || numbers(&log) == load.numbers()).await;
    worker.leave().await;
    assert_eq!(oracle::lag(&server, "orders", "app"), 0);
    (server, load, log)
}

/// Leaders change while messages are published and read.
#[test]
fn partitions_that_move_under_load() {
    run(async {
        let moving = async |server: &Server, load: &Load, _: &Log| {
            for round in 0..12 {
                let (partition, node) = ((round % 3).to_string(), NODES[(round + round / 3) % 3]);
                server.tell(&["leader", &real("orders"), &partition, node]).await;
                load.goes_on(30).await;
            }
        };
        let (server, load, log) = under_load(moving).await;
        assert_eq!(ledger(&server.read("orders").await), (load.numbers(), 0, true));
        assert_eq!(duplicates(&log), 0);
    });
}

/// Brokers go and come back, one after the other, their partitions with them.
#[test]
fn brokers_that_go_and_come_back_under_load() {
    run(async {
        let breaking = async |server: &Server, load: &Load, _: &Log| {
            for node in NODES.iter().chain(&NODES) {
                load.goes_on(30).await;
                server.tell(&["down", node]).await;
                tokio::time::sleep(Duration::from_millis(700)).await;
                server.tell(&["up", node]).await;
            }
            load.goes_on(30).await;
        };
        let (server, load, _) = under_load(breaking).await;
        let (stored, _, _) = ledger(&server.read("orders").await);
        assert_eq!(stored, load.numbers());
    });
}

/// A group changes its coordinator, which is no reason to deliver anything twice.
#[test]
fn a_coordinator_that_moves() {
    run(async {
        let moving = async |server: &Server, load: &Load, log: &Log| {
            for round in 0..6 {
                server.tell(&["coordinator", &real("app"), NODES[round % 3]]).await;
                load.goes_on(50).await;
                let so_far = load.numbers();
                until("all so far is done", async || numbers(log).is_superset(&so_far)).await;
            }
        };
        let (_, _, log) = under_load(moving).await;
        assert_eq!(duplicates(&log), 0);
    });
}

/// Each request of a member is refused in each way that passes: it stays or becomes a member, and loses nothing.
#[test]
fn a_member_that_is_refused_for_a_while() {
    run(async {
        let server = mock("2").await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        server.prepare("orders").await;
        let log = Log::default();
        let refusals = [
            // First, for who coordinates is asked once.
            ("find-coordinator", [NO_COORDINATOR, UNKNOWN]),
            ("heartbeat", [REBALANCING, NOT_COORDINATOR]),
            ("heartbeat", [UNKNOWN_MEMBER, OLD_GENERATION]),
            ("join-group", [LOADING, UNKNOWN_MEMBER]),
            ("sync-group", [REBALANCING, NOT_COORDINATOR]),
            ("offset-fetch", [LOADING, NOT_COORDINATOR]),
            ("offset-commit", [LOADING, NOT_COORDINATOR]),
            ("offset-commit", [TIMED_OUT, HANGS_UP]),
        ];
        for (round, (api, codes)) in (0..).zip(refusals) {
            let before = count(&server, api).await;
            server.tell(&[&["errors", api], &codes[..]].concat()).await;
            let worker = Worker::start("one", bus.subscribe("orders", "app", 30).await, &log);
            bus.publish_numbers("orders", round * 20..(round + 1) * 20).await;
            until("all is done", async || numbers(&log).len() == (round as usize + 1) * 20).await;
            let mut asked = 0;
            let give_up = Instant::now() + SOON;
            while asked < 2 && Instant::now() < give_up {
                asked = count(&server, api).await - before;
            }
            worker.leave().await;
            assert!((2..60).contains(&asked), "{api}: {asked} requests");
            server.tell(&["well", api]).await;
        }
        assert_eq!(oracle::lag(&server, "orders", "app"), 0);
    });
}

/// A slow network slows down what waits for it, and confuses nothing.
#[test]
fn answers_that_take_their_time() {
    run(async {
        let server = mock("1").await;
        let bus = Bus::open(&server.host(), "i", &[("readTimeout", "1s")]).await;
        server.prepare("orders").await;
        bus.publish("orders", b"0").await.unwrap();
        for node in NODES {
            server.tell(&["rtt", node, "200"]).await;
        }
        let inbox = bus.subscribe("orders", "app", 100).await;
        let since = Instant::now();
        bus.publish_numbers("orders", 1..40).await;
        assert!(since.elapsed() >= Duration::from_millis(200), "{:?}", since.elapsed());
        let taken = inbox.take(40).await;
        assert_eq!(taken.iter().map(number).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
        assert!(inbox.ack_all(&taken).await.iter().all(Result::is_ok));
        for node in NODES {
            server.tell(&["rtt", node, "5000"]).await;
        }
        let since = Instant::now();
        let result = bus.adapter.publish(vec![message("orders", b"40")], Duration::from_secs(2)).await.remove(0);
        assert!(matches!(result, Err(Failure::Transient(_) | Failure::Unknown(_))), "{result:?}");
        assert!((2..5).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
        for node in NODES {
            server.tell(&["rtt", node, "0"]).await;
        }
        bus.publish_numbers("orders", 41..42).await;
        let mut seen = 0;
        while seen != 41 {
            seen = number(&inbox.next().await);
        }
        if matches!(result, Err(Failure::Transient(_))) {
            assert!(!server.read("orders").await.iter().any(|stored| stored.text() == "40"), "{result:?}");
        }
    });
}

/// What is not permitted is told, with what is missing, and not asked for over and over.
#[test]
fn a_topic_or_group_that_is_not_permitted() {
    run(async {
        let server = mock("1").await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        server.prepare("secret").await;
        server.tell(&["topic-error", &real("secret"), TOPIC_DENIED]).await;
        let before = count(&server, "metadata").await;
        let names = |text: &str, needs: &str| text.contains(&real("secret")) && text.contains(needs);
        for _ in 0..5 {
            let result = bus.publish("secret", b"x").await;
            assert!(matches!(&result, Err(Failure::Unauthorized(text)) if names(text, "WRITE")), "{result:?}");
            let result = bus.try_subscribe("secret", "app", 10, None).await.map(|_| ());
            assert!(matches!(&result, Err(Failure::Unauthorized(text)) if names(text, "READ")), "{result:?}");
        }
        let asked = count(&server, "metadata").await - before;
        assert!((10..30).contains(&asked), "{asked} requests");
        server.tell(&["topic-error", &real("secret"), "0"]).await;
        bus.publish("secret", b"x").await.unwrap();

        // Not what finds the coordinator or joins: those the mock answers with a null where Kafka has none.
        server.tell(&["errors", "offset-fetch", GROUP_DENIED]).await;
        let result = bus.try_subscribe("secret", "app", 10, None).await.map(|_| ());
        let names = |text: &str| text.contains(&real("app")) && text.contains("READ on the group");
        assert!(matches!(&result, Err(Failure::Unauthorized(text)) if names(text)), "{result:?}");
        assert!((1..5).contains(&count(&server, "offset-fetch").await));
        assert_eq!(bus.subscribe("secret", "app", 10).await.next().await.message.data, b"x");
    });
}
