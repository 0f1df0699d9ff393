//! The redis crate.

use bytes::Bytes;
use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, Client, cmd};

pub struct Publisher(MultiplexedConnection);

async fn connection(address: &str) -> MultiplexedConnection {
    let client = Client::open(format!("redis://{address}")).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

impl Publisher {
    pub async fn connect(address: &str) -> Self {
        Self(connection(address).await)
    }

    pub async fn publish(&self, topic: &str, data: &Bytes, copies: usize) {
        let one = async || {
            let mut connection = self.0.clone();
            let command = &mut cmd("XADD");
            command.arg(topic).arg("MAXLEN").arg("~").arg(200_000).arg("*").arg("data").arg(data.as_ref());
            let id: String = command.query_async(&mut connection).await.unwrap();
            assert!(!id.is_empty());
        };
        join_all((0..copies).map(|_| one())).await;
    }
}

pub async fn consume(
    address: &str,
    topic: &str,
    group: &str,
    credit: u32,
    ready: impl FnOnce(),
    mut seen: impl FnMut(&[u8]) -> bool,
) {
    // A read that blocks has a connection of its own, as the crate's documentation asks.
    let (mut reads, mut acks) = (connection(address).await, connection(address).await);
    // It may be there already.
    let made: Result<(), _> = reads.xgroup_create_mkstream(topic, group, "0").await;
    made.ok();
    ready();
    let options = StreamReadOptions::default().group(group, "bench").count(credit as usize).block(400);
    let mut more = true;
    while more {
        let reply: StreamReadReply = reads.xread_options(&[topic], &[">"], &options).await.unwrap();
        for stream in reply.keys {
            let ids: Vec<&str> = stream.ids.iter().map(|entry| entry.id.as_str()).collect();
            for entry in &stream.ids {
                let data: Vec<u8> = entry.get("data").unwrap();
                more &= seen(&data);
            }
            let _: u64 = acks.xack(topic, group, &ids).await.unwrap();
        }
    }
}
