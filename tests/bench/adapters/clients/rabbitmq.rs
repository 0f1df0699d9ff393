//! lapin.

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

/// Delivery mode "persistent".
const PERSISTENT: u8 = 2;

pub struct Publisher {
    channel: Channel,
    _connection: Connection,
}

async fn open(address: &str) -> (Connection, Channel) {
    let uri = format!("amqp://guest:guest@{address}/%2f");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

impl Publisher {
    pub async fn connect(address: &str) -> Self {
        let (connection, channel) = open(address).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { channel, _connection: connection }
    }

    pub async fn publish(&self, topic: &str, data: &Bytes, copies: usize) {
        let one = async || {
            let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
            let options = BasicPublishOptions::default();
            let sent = self.channel.basic_publish(topic.into(), "".into(), options, data, properties).await.unwrap();
            assert!(!sent.await.unwrap().is_nack());
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
    let (_connection, channel) = open(address).await;
    let queue = format!("{group}-{topic}");
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel.exchange_declare(topic.into(), ExchangeKind::Fanout, durable, none()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), durable, none()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind(queue.as_str().into(), topic.into(), "".into(), bind, none()).await.unwrap();
    channel.basic_qos(u16::try_from(credit).unwrap(), BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(queue.as_str().into(), "bench".into(), options, none()).await.unwrap();
    ready();
    loop {
        let delivery = consumer.next().await.unwrap().unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        if !seen(&delivery.data) {
            break;
        }
    }
}
