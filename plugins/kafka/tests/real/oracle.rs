//! An independent client: librdkafka, through the Python package that the brokers' commands use.

use super::harness::{Server, real};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use tokio::sync::mpsc::{Receiver, channel};

fn python(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(super::harness::python());
    command.arg("-c").arg(script).args(arguments).stdin(Stdio::null());
    command
}

fn say(script: &str, arguments: &[&str]) -> String {
    let output = python(script, arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// How far a group is behind, by what it has committed.
pub(crate) fn lag(server: &Server, topic: &str, group: &str) -> i64 {
    let script = r#"
import sys
from confluent_kafka import Consumer, TopicPartition
servers, topic, group = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": servers, "group.id": group})
partitions = consumer.list_topics(topic, 60).topics[topic].partitions
committed = consumer.committed([TopicPartition(topic, p) for p in partitions], 60)
behind = 0
for one in committed:
    low, high = consumer.get_watermark_offsets(one, 60)
    behind += high - max(one.offset, low)
print(behind)
"#;
    say(script, &[&server.internal(), &real(topic), &real(group)]).parse().unwrap()
}

/// How many members a group has.
pub(crate) fn members(server: &Server, group: &str) -> usize {
    let script = r#"
import sys
from confluent_kafka.admin import AdminClient
servers, group = sys.argv[1:]
admin = AdminClient({"bootstrap.servers": servers})
print(len(admin.describe_consumer_groups([group])[group].result(60).members))
"#;
    say(script, &[&server.host(), &real(group)]).parse().unwrap()
}

/// Gives a topic more partitions.
pub(crate) fn grow(server: &Server, topic: &str, partitions: u32) {
    let script = r#"
import sys
from confluent_kafka.admin import AdminClient, NewPartitions
servers, topic, count = sys.argv[1:]
admin = AdminClient({"bootstrap.servers": servers})
admin.create_partitions([NewPartitions(topic, int(count))])[topic].result(60)
"#;
    say(script, &[&server.host(), &real(topic), &partitions.to_string()]);
}

/// Deletes what a partition holds before an offset.
pub(crate) fn delete_before(server: &Server, topic: &str, partition: u32, offset: u32) {
    let script = r#"
import sys
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
servers, topic, partition, offset = sys.argv[1:]
one = TopicPartition(topic, int(partition), int(offset))
admin = AdminClient({"bootstrap.servers": servers})
list(admin.delete_records([one]).values())[0].result(60)
"#;
    say(script, &[&server.host(), &real(topic), &partition.to_string(), &offset.to_string()]);
}

/// Publishes the numbers from 0 on, round the partitions.
pub(crate) fn produce(server: &Server, topic: &str, count: u32, codec: &str) {
    let script = r#"
import sys
from confluent_kafka import Producer
servers, topic, count, codec = sys.argv[1:]
producer = Producer({"bootstrap.servers": servers, "compression.type": codec, "linger.ms": 20, "topic.metadata.refresh.interval.ms": 200})
partitions = len(producer.list_topics(topic, 60).topics[topic].partitions) or 4
for n in range(int(count)):
    producer.produce(topic, str(n), partition=n % partitions)
assert producer.flush(60) == 0
"#;
    say(script, &[&server.host(), &real(topic), &count.to_string(), codec]);
}

/// What a user may do: an operation, on what kind of thing, and its name.
pub(crate) type Grant<'a> = (&'a str, &'a str, &'a str);

/// Makes users with the password `x`, who may do this and nothing else; returns when the broker knows.
pub(crate) fn allow(server: &Server, users: &[(&str, &[Grant<'_>])]) {
    let script = r#"
import json, sys, time
from confluent_kafka import admin as a
servers, users = sys.argv[1:]
client = a.AdminClient({"bootstrap.servers": servers})
anything = lambda user: a.AclBindingFilter(a.ResourceType.ANY, None, a.ResourcePatternType.ANY, "User:" + user, None, a.AclOperation.ANY, a.AclPermissionType.ANY)
for user, grants in json.loads(users):
    secret = a.ScramCredentialInfo(a.ScramMechanism.SCRAM_SHA_256, 4096)
    client.alter_user_scram_credentials([a.UserScramCredentialUpsertion(user, secret, b"x")])[user].result(60)
    client.delete_acls([anything(user)])[anything(user)].result(60)
    wanted = [a.AclBinding(a.ResourceType[kind], name, a.ResourcePatternType.LITERAL, "User:" + user, "*", a.AclOperation[what], a.AclPermissionType.ALLOW) for what, kind, name in grants]
    for made in client.create_acls(wanted).values() if wanted else []:
        made.result(60)
    while len(client.describe_acls(anything(user)).result(60)) != len(wanted):
        time.sleep(0.02)
"#;
    let named = |(what, kind, name): &Grant<'_>| json!([what, kind.to_uppercase(), real(name)]);
    let users = users.iter().map(|(user, grants)| json!([user, grants.iter().map(named).collect::<Vec<_>>()]));
    say(script, &[&server.internal(), &Value::Array(users.collect()).to_string()]);
}

/// So many transactions of ten messages each; every second one is aborted.
pub(crate) fn transactions(server: &Server, topic: &str, count: u32) {
    let script = r#"
import sys
from confluent_kafka import Producer
servers, topic, count = sys.argv[1:]
producer = Producer({"bootstrap.servers": servers, "transactional.id": "t"})
producer.init_transactions(60)
for t in range(int(count)):
    producer.begin_transaction()
    for n in range(10):
        producer.produce(topic, str(t * 10 + n))
    producer.flush(60)
    producer.commit_transaction(60) if t % 2 == 0 else producer.abort_transaction(60)
"#;
    say(script, &[&server.host(), &real(topic), &count.to_string()]);
}

/// Lines that nobody has read yet; then it waits.
const LINES_MAX: usize = 10_000;

/// A member of a group that is not ours. It tells what it gets, and then commits it.
pub(crate) struct Foreigner {
    process: Child,
    /// What it says, line by line, to its end.
    pub(crate) lines: Receiver<String>,
}

impl Foreigner {
    pub(crate) fn join(server: &Server, topic: &str, group: &str, strategy: &str) -> Self {
        let script = r#"
import sys
from confluent_kafka import Consumer
servers, topic, group, strategy = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": servers, "group.id": group, "partition.assignment.strategy": strategy,
    "enable.auto.commit": False, "auto.offset.reset": "earliest", "session.timeout.ms": 3000, "heartbeat.interval.ms": 300,
})
say = lambda line: print(line, flush=True)
consumer.subscribe([topic], on_assign=lambda c, parts: say(f"assigned {len(parts)}"))
while True:
    message = consumer.poll(0.2)
    if message and not message.error():
        say(f"got {message.value().decode()}")
        consumer.commit(message, asynchronous=False)
"#;
        let (host, topic, group) = (server.host(), real(topic), real(group));
        let mut command = python(script, &[&host, &topic, &group, strategy]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in output.lines() {
                sender.blocking_send(line.unwrap()).ok();
            }
        });
        Self { process, lines }
    }

    /// It dies.
    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        self.process.kill().ok();
        self.process.wait().unwrap();
    }
}

impl Drop for Foreigner {
    fn drop(&mut self) {
        self.kill();
    }
}
