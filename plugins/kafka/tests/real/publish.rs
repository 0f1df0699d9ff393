//! Publishing: what arrives, what is refused, and what waits.

use super::harness::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use whimbrel_sdk::{Adapter, Failure, Message, Status};

/// Asks librdkafka, through the Python package that the brokers' commands use.
fn ask(server: &Server, script: &str, topic: &str, arguments: &[String]) -> String {
    let mut command = std::process::Command::new(python());
    command.arg("-c").arg(script).arg(server.internal()).arg(real(topic)).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Which partition librdkafka, told to do as Kafka's own clients do, sends each key to.
fn partitions_of(server: &Server, keys: &[String]) -> BTreeMap<String, String> {
    let script = r#"
import sys
from confluent_kafka import Producer
servers, topic, *keys = sys.argv[1:]
producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random"})
for key in keys:
    told = lambda error, message, key=key: print(key, message.partition())
    producer.produce(topic, "x", key, on_delivery=told)
assert producer.flush(10) == 0
"#;
    let pair = |line: &str| line.split_once(' ').map(|(key, partition)| (key.to_owned(), partition.to_owned()));
    ask(server, script, "theirs", keys).lines().filter_map(pair).collect()
}

/// Whether the only message of a topic is one without a value.
fn has_tombstone(server: &Server, topic: &str) -> bool {
    let script = r#"
import sys
from confluent_kafka import Consumer, TopicPartition
servers, topic = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": servers, "group.id": "none"})
partitions = consumer.list_topics(topic, 10).topics[topic].partitions
consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
message = consumer.poll(10)
print(message is not None and message.value() is None)
"#;
    ask(server, script, topic, &[]).trim() == "True"
}

fn with(topic: &str, data: &[u8], key: Option<&str>, metadata: &[(&str, &str)]) -> Message {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Message { key: key.map(str::to_owned), metadata, ..message(topic, data) }
}

async fn sent(bus: &Bus, message: Message) -> Result<(), Failure> {
    bus.adapter.publish(vec![message], SOON).await.remove(0)
}

#[test]
fn bytes_arrive_as_they_were_sent() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let all: Vec<u8> = (0..=255).collect();
        let large = vec![0xC3; 1_000_000];
        let sent: [&[u8]; 5] = [b"hello", b"", b"\0", &all, &large];
        for data in sent {
            bus.publish("orders", data).await.unwrap();
        }
        let mut stored: Vec<Vec<u8>> = server.read("orders").await.into_iter().map(|stored| stored.data).collect();
        stored.sort();
        let mut expected: Vec<Vec<u8>> = sent.iter().map(|data| data.to_vec()).collect();
        expected.sort();
        assert!(stored == expected);
    });
}

/// Dapr's component writes these headers and keys, and reads them.
#[test]
fn records_are_interchangeable_with_daprs() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[("maxMessageBytes", "100000")]).await;
        let pairs = [("traceparent", "00-1"), ("partitionKey", "ü"), ("empty", "")];
        sent(&bus, with("ours", br#"{"id":1}"#, Some("ü"), &pairs)).await.unwrap();
        let stored = server.read("ours").await.remove(0);
        assert_eq!(stored.text(), r#"{"id":1}"#);
        for (name, value) in [("traceparent", "00-1"), ("partitionKey", "ü"), ("empty", ""), ("__key", "ü")] {
            assert_eq!(stored.metadata[name], value, "{name}");
        }

        let inbox = bus.subscribe("theirs", "app", 10).await;
        server.write("theirs", &[(br#"{"id":2}"#, &[("traceid", "7"), ("partitionKey", "k")])]).await;
        let delivery = inbox.next().await;
        assert_eq!(delivery.message.data, br#"{"id":2}"#);
        assert_eq!(delivery.message.key.as_deref(), Some("k"));
        for (name, value) in [("traceid", "7"), ("partitionKey", "k"), ("__key", "k"), ("__topic", &real("theirs"))] {
            assert_eq!(metadata(&delivery, name), value, "{name}");
        }
        assert_eq!(metadata(&delivery, "__offset"), "0");
        assert!(metadata(&delivery, "__timestamp").parse::<u64>().unwrap() > 1_700_000_000_000);
        assert!(metadata(&delivery, "__partition").parse::<u32>().is_ok());
    });
}

/// What an independent client unpacks, is packed as it should be.
#[test]
fn every_way_to_compress() {
    run(async {
        let server = Server::start(&[]).await;
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let bus = Bus::open(&server.host(), "i", &[("compression", codec)]).await;
            let data = [b"repeat ".repeat(20_000), codec.as_bytes().to_vec()].concat();
            bus.publish(codec, &data).await.unwrap();
            let stored = server.read(codec).await;
            assert!(stored.len() == 1 && stored[0].data == data, "{codec}");
            let inbox = bus.subscribe(codec, "app", 1).await;
            assert!(inbox.next().await.message.data == data, "{codec}");
        }
    });
}

#[test]
fn a_key_has_one_partition_and_keeps_its_order() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        // Twenty calls at once, each with all keys.
        let calls = (0..20).map(|call| {
            let one = |key: u32| with("orders", format!("{key}:{call}").as_bytes(), Some(&format!("k{key}")), &[]);
            bus.adapter.publish((0..50).map(one).collect(), SOON)
        });
        let results = futures::future::join_all(calls).await.concat();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let mut by_key: BTreeMap<String, Vec<(String, u32)>> = BTreeMap::new();
        for stored in server.read("orders").await {
            let (key, call) = stored.text().split_once(':').unwrap();
            let partition = stored.metadata["__partition"].to_string();
            by_key.entry(key.to_owned()).or_default().push((partition, call.parse().unwrap()));
        }
        assert_eq!(by_key.len(), 50);
        for (key, messages) in by_key {
            assert!(messages.iter().all(|(partition, _)| *partition == messages[0].0), "{key}: {messages:?}");
            assert_eq!(
                messages.iter().map(|(_, call)| *call).collect::<Vec<_>>(),
                (0..20).collect::<Vec<_>>(),
                "{key}"
            );
        }
    });
}

/// The partition of a key is where Kafka's own clients look for it.
#[test]
fn the_partitioner_is_kafkas() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let keys: Vec<String> = (0..40).map(|number| format!("customer-{number}")).collect();
        for key in &keys {
            sent(&bus, with("orders", b"x", Some(key), &[])).await.unwrap();
        }
        let theirs = partitions_of(&server, &keys);
        for stored in server.read("orders").await {
            let key = stored.metadata["__key"].as_str().unwrap();
            assert_eq!(stored.metadata["__partition"], theirs[key], "{key}");
        }
    });
}

#[test]
fn a_partition_that_the_publisher_names() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        for partition in ["3", "0", "2"] {
            sent(&bus, with("orders", partition.as_bytes(), None, &[("partitionNumber", partition)])).await.unwrap();
        }
        for stored in server.read("orders").await {
            assert_eq!(stored.metadata["__partition"], stored.text());
        }
        for partition in ["4", "-1", "x"] {
            let result = sent(&bus, with("orders", b"x", None, &[("partitionNumber", partition)])).await;
            assert!(matches!(&result, Err(Failure::Invalid(text)) if text.contains("partitionNumber")), "{result:?}");
        }
    });
}

#[test]
fn a_list_has_a_result_for_each() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[("maxMessageBytes", "2000")]).await;
        let mut list: Vec<Message> = ["good", "good", "other"].map(|topic| message(topic, b"x")).into();
        list.insert(1, message("good", &[b'x'; 3000]));
        list.insert(0, Message { topic: "a b".to_owned(), ..message("x", b"x") });
        list.push(Message { topic: String::new(), ..message("x", b"x") });
        let results = bus.adapter.publish(list, SOON).await;
        for good in [1, 3, 4] {
            assert!(results[good].is_ok(), "{results:?}");
        }
        assert!(matches!(&results[0], Err(Failure::Invalid(text)) if text.contains("a b")), "{results:?}");
        assert!(matches!(&results[2], Err(Failure::Invalid(text)) if text.contains("maxMessageBytes")), "{results:?}");
        assert!(matches!(&results[5], Err(Failure::Invalid(_))), "{results:?}");
        assert_eq!(bus.adapter.publish(Vec::new(), SOON).await, []);
        assert_eq!(server.read("good").await.len(), 2);
    });
}

/// As large as `features` says is taken, one byte more is not, and the connection does not mind.
#[test]
fn the_largest_message() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let max = usize::try_from(bus.adapter.features().max_message_bytes).unwrap();
        bus.publish("orders", &vec![1; max]).await.unwrap();
        let result = bus.publish("orders", &vec![1; max + 1]).await;
        assert!(matches!(&result, Err(Failure::Invalid(text)) if text.contains("maxMessageBytes")), "{result:?}");
        bus.publish("orders", b"after").await.unwrap();
    });
}

/// The broker's limit is below ours: what is too large fails, and what it was sent with does not.
#[test]
fn a_broker_that_takes_less() {
    run(async {
        let server = Server::own(&["--max-message-bytes", "20000", "--partitions", "1"]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let mut list: Vec<Message> = (0..40).map(|_| message("orders", &[b'a'; 1000])).collect();
        list.insert(20, message("orders", &[b'b'; 30_000]));
        let results = bus.adapter.publish(list, SOON).await;
        for (index, result) in results.iter().enumerate() {
            match index {
                20 => assert!(matches!(result, Err(Failure::Invalid(text)) if text.contains("max.message.bytes"))),
                _ => assert!(result.is_ok(), "{index}: {result:?}"),
            }
        }
        assert_eq!(server.read("orders").await.len(), 40);
    });
}

#[test]
fn a_topic_that_nobody_creates() {
    run(async {
        let server = Server::own(&["--no-topics"]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let since = Instant::now();
        let result = bus.publish("missing", b"x").await;
        let names = |text: &str| text.contains("missing") && text.contains("auto.create.topics.enable");
        assert!(matches!(&result, Err(Failure::Invalid(text)) if names(text)), "{result:?}");
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        server.prepare("missing").await;
        bus.publish("missing", b"x").await.unwrap();
    });
}

#[test]
fn a_tombstone() {
    run(async {
        let server = Server::start(&[]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        let inbox = bus.subscribe("orders", "app", 10).await;
        sent(&bus, with("orders", b"null", Some("k"), &[])).await.unwrap();
        assert_eq!(inbox.next().await.message.data, b"null");
        assert!(has_tombstone(&server, "orders"));
    });
}

#[test]
fn weaker_confirmations() {
    run(async {
        let server = Server::start(&[]).await;
        for acks in ["local", "none"] {
            let bus = Bus::open(&server.host(), "i", &[("producerRequiredAcks", acks)]).await;
            for _ in 0..20 {
                bus.publish(acks, b"x").await.unwrap();
            }
            bus.adapter.ping().await.unwrap();
            assert_eq!(server.read(acks).await.len(), 20, "{acks}");
        }
    });
}

#[test]
fn while_the_broker_is_away_publishes_wait_until_their_deadline() {
    run(async {
        let server = Server::own(&["--partitions", "1"]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        bus.publish("orders", b"before").await.unwrap();
        server.kill().await;
        bus.hears("it is away", |status| matches!(status, Status::Connecting(why) if !why.is_empty())).await;

        let since = Instant::now();
        let result = bus.adapter.publish(vec![message("orders", b"late")], Duration::from_millis(300)).await;
        assert!(matches!(result[..], [Err(Failure::Transient(_))]), "{result:?}");
        assert!((300..3000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());

        let (waited, ()) = tokio::join!(bus.publish("orders", b"patient"), server.restart());
        waited.unwrap();
        bus.hears("it is back", |status| matches!(status, Status::Ready)).await;
        let stored = server.read("orders").await;
        assert_eq!(stored.iter().map(Stored::text).collect::<Vec<_>>(), ["before", "patient"]);
    });
}

/// Answers are lost, and connections: what was confirmed is there once, and in order.
#[test]
fn cut_connections_neither_lose_nor_double_nor_reorder() {
    run(async {
        let (server, proxy) = Server::behind_proxy(&["--partitions", "1"]).await;
        let bus = Bus::open(&proxy.host(), "i", &[]).await;
        bus.publish("orders", b"0").await.unwrap();
        let (count, is_over) = (Cell::new(1), Cell::new(false));
        let publishing = async {
            while !is_over.get() {
                bus.publish("orders", count.get().to_string().as_bytes()).await.unwrap();
                count.set(count.get() + 1);
            }
        };
        let cutting = async {
            for round in 0..12 {
                tokio::time::sleep(Duration::from_millis(40)).await;
                // The answer is lost, and then the connection.
                proxy.mute(round % 2 == 0);
                tokio::time::sleep(Duration::from_millis(20)).await;
                proxy.cut();
                proxy.mute(false);
                let before = count.get();
                until("it goes on", async || count.get() > before + 5).await;
            }
            is_over.set(true);
        };
        tokio::join!(publishing, cutting);
        let stored: Vec<u32> =
            server.read("orders").await.iter().map(|stored| stored.text().parse().unwrap()).collect();
        assert_eq!(stored, (0..count.get()).collect::<Vec<_>>());
        assert!(proxy.accepted() > 10, "the proxy cut nothing");
    });
}

/// Many batches on their way when the connection breaks.
#[test]
fn pipelined_batches_survive_cuts_in_order() {
    run(async {
        let (server, proxy) = Server::behind_proxy(&["--partitions", "1"]).await;
        let bus = Bus::open(&proxy.host(), "i", &[]).await;
        bus.publish("orders", b"0").await.unwrap();
        let publishing = async {
            for round in 0..10u32 {
                let calls = (0..20).map(|call| {
                    let first = 1 + round * 100 + call * 5;
                    let numbers = (first..first + 5).map(|number| message("orders", number.to_string().as_bytes()));
                    bus.adapter.publish(numbers.collect(), SOON)
                });
                let results = futures::future::join_all(calls).await.concat();
                assert!(results.iter().all(Result::is_ok), "{results:?}");
            }
        };
        let cutting = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(15)).await;
                proxy.cut();
            }
        };
        tokio::join!(publishing, cutting);
        let stored: Vec<u32> =
            server.read("orders").await.iter().map(|stored| stored.text().parse().unwrap()).collect();
        assert_eq!(stored, (0..=1000).collect::<Vec<_>>());
    });
}

#[test]
fn a_lost_confirmation_is_told_as_unknown() {
    run(async {
        let (server, proxy) = Server::behind_proxy(&[]).await;
        let bus = Bus::open(&proxy.host(), "i", &[]).await;
        bus.publish("orders", b"before").await.unwrap();
        proxy.mute(true);
        let result = bus.adapter.publish(vec![message("orders", b"x")], Duration::from_millis(500)).await;
        assert!(matches!(result[..], [Err(Failure::Unknown(_))]), "{result:?}");
        proxy.mute(false);
        proxy.cut();
        bus.publish("orders", b"after").await.unwrap();
        let stored = server.read("orders").await;
        let count = |text: &str| stored.iter().filter(|stored| stored.text() == text).count();
        assert_eq!((count("before"), count("after")), (1, 1));
        assert!(count("x") <= 1, "it is there {} times", count("x"));
    });
}

#[test]
fn one_of_three_brokers_may_die() {
    run(async {
        let server = Server::own(&["--nodes", "3", "--partitions", "6"]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        for number in 0..20 {
            bus.publish("orders", number.to_string().as_bytes()).await.unwrap();
        }
        let publishing = async {
            for number in 20..300 {
                let key = format!("k{}", number % 30);
                sent(&bus, with("orders", number.to_string().as_bytes(), Some(&key), &[])).await.unwrap();
            }
        };
        let killing = async {
            server.kill_node(2).await;
        };
        tokio::join!(publishing, killing);
        let mut stored: Vec<u32> =
            server.read("orders").await.iter().map(|stored| stored.text().parse().unwrap()).collect();
        stored.sort_unstable();
        assert_eq!(stored, (0..300).collect::<Vec<_>>());
    });
}

/// With two of three gone nothing can be confirmed: what fails now must not appear later.
#[test]
fn too_few_replicas() {
    run(async {
        let server = Server::own(&["--nodes", "3", "--partitions", "1"]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        bus.publish("orders", b"before").await.unwrap();
        server.freeze_node(1, true).await;
        server.freeze_node(2, true).await;
        let result = bus.adapter.publish(vec![message("orders", b"x")], Duration::from_secs(3)).await;
        assert!(matches!(result[..], [Err(Failure::Transient(_) | Failure::Unknown(_))]), "{result:?}");
        server.freeze_node(1, false).await;
        server.freeze_node(2, false).await;
        bus.publish("orders", b"after").await.unwrap();
        // A node that has just thawed may still answer as the leader it was: its end is not the partition's. What was
        // confirmed must turn up for a reader all the same, and soon.
        let give_up = Instant::now() + SOON;
        let stored = loop {
            let stored = server.read("orders").await;
            if stored.iter().any(|stored| stored.text() == "after") {
                break stored;
            }
            assert!(Instant::now() < give_up, "a confirmed message is not there");
        };
        let count = |text: &str| stored.iter().filter(|stored| stored.text() == text).count();
        assert_eq!((count("before"), count("after")), (1, 1));
        if matches!(result[..], [Err(Failure::Transient(_))]) {
            assert_eq!(count("x"), 0, "a message that was said not to be stored is there");
        }
    });
}

#[test]
fn the_queue_is_bounded() {
    run(async {
        let server = Server::own(&["--partitions", "1"]).await;
        let bus = Bus::open(&server.host(), "i", &[]).await;
        bus.publish("orders", b"before").await.unwrap();
        server.kill().await;
        let data = vec![0; 1_000_000];
        let publishes =
            (0..60).map(|_| bus.adapter.publish(vec![message("orders", &data)], Duration::from_millis(500)));
        let results = futures::future::join_all(publishes).await.concat();
        let full = |result: &&Result<(), Failure>| matches!(result, Err(Failure::Throttled(_)));
        let throttled = results.iter().filter(full).count();
        assert!((25..=30).contains(&throttled), "{throttled}");
        assert!(results.iter().all(Result::is_err));
    });
}

/// Many topics, each published to once: no connection of its own for any of them.
#[test]
fn many_topics() {
    run(async {
        let (_server, proxy) = Server::behind_proxy(&["--partitions", "1"]).await;
        let bus = Bus::open(&proxy.host(), "i", &[]).await;
        let list = (0..40).map(|number| message(&format!("t{number}"), b"x")).collect();
        let results = bus.adapter.publish(list, SOON).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert!(proxy.accepted() <= 2, "{} connections", proxy.accepted());
    });
}
