//! Which partition a message goes to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use whimbrel_sdk::{Failure, Message};

use crate::cluster::PartitionInfo;
use crate::config::Partitioner;
use crate::records::Record;

/// The publish metadata that names a partition.
const PARTITION_NAME: &str = "partitionNumber";

/// Messages without a key go to one partition until it has got so many bytes: one batch is cheaper than many.
const STICKY_BYTES: usize = 16 << 10;

/// Topics whose partition for messages without a key is remembered, at most.
const STICKY_MAX: usize = 10_000;

/// The partition of a topic that messages without a key go to now.
#[derive(Debug, Clone, Copy)]
struct Sticky {
    partition: i32,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Partitioning {
    partitioner: Partitioner,
    sticky: RefCell<HashMap<Rc<str>, Sticky>>,
}

/// The partition that the publisher names.
///
/// # Errors
/// It is no number that a partition can have.
pub(super) fn named(message: &Message) -> Result<Option<i32>, Failure> {
    let named = message.metadata.iter().rev().find(|(name, _)| name == PARTITION_NAME);
    let Some((_, text)) = named else { return Ok(None) };
    match text.trim().parse() {
        Ok(number) if number >= 0 => Ok(Some(number)),
        _ => Err(Failure::Invalid(format!("metadata {PARTITION_NAME} must be a whole number of 0 or more"))),
    }
}

impl Partitioning {
    pub(super) fn new(partitioner: Partitioner) -> Self {
        Self { partitioner, sticky: RefCell::default() }
    }

    /// The partition for all messages without a key in one call.
    pub(super) fn sticky(&self, topic: &Rc<str>, partitions: &[PartitionInfo], bytes: usize) -> i32 {
        let mut sticky = self.sticky.borrow_mut();
        let led = |id: i32| partitions.iter().any(|info| info.id == id && info.leader.is_some());
        if let Some(known) = sticky.get_mut(topic)
            && known.bytes < STICKY_BYTES
            && led(known.partition)
        {
            known.bytes += bytes;
            return known.partition;
        }
        let last = sticky.get(topic).map(|known| known.partition);
        let ids: Vec<i32> = partitions.iter().map(|info| info.id).collect();
        let mut choices: Vec<i32> = ids.iter().copied().filter(|id| led(*id) && Some(*id) != last).collect();
        if choices.is_empty() {
            choices = ids;
        }
        let partition = choices.get(fastrand::usize(..choices.len().max(1))).copied().unwrap_or(0);
        if sticky.len() >= STICKY_MAX {
            sticky.clear();
        }
        sticky.insert(Rc::clone(topic), Sticky { partition, bytes });
        partition
    }

    /// The partition for one message.
    ///
    /// # Errors
    /// The topic has no such partition.
    pub(super) fn choose(
        &self,
        record: &Record,
        named: Option<i32>,
        partitions: &[PartitionInfo],
        sticky: i32,
    ) -> Result<i32, Failure> {
        match (named, &record.key) {
            (Some(named), _) if partitions.iter().any(|info| info.id == named) => Ok(named),
            (Some(named), _) => Err(Failure::Invalid(format!(
                "metadata {PARTITION_NAME}: there is no partition {named}, the topic has {}",
                partitions.len()
            ))),
            (None, None) => Ok(sticky),
            (None, Some(key)) => {
                let count = u32::try_from(partitions.len()).unwrap_or(1).max(1);
                let index = match self.partitioner {
                    Partitioner::Murmur2 => (murmur2(key) & 0x7fff_ffff) % count,
                    Partitioner::Fnv1a => (fnv1a(key).cast_signed() % count.cast_signed()).unsigned_abs(),
                };
                Ok(partitions.get(index as usize).map_or(sticky, |info| info.id))
            }
        }
    }
}

/// The hash of Kafka's own clients (MurmurHash 2, with their seed).
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0u32, |word, byte| (word << 8) | u32::from(*byte));
        let mixed = word.wrapping_mul(M);
        let mixed = (mixed ^ (mixed >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ mixed;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0u32, |word, byte| (word << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The hash of Dapr's client (FNV-1a).
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn partitions(count: i32) -> Vec<PartitionInfo> {
        (0..count).map(|id| PartitionInfo { id, leader: Some(1) }).collect()
    }

    fn chosen(partitioner: Partitioner, key: &'static str, count: i32) -> i32 {
        let record = Record { key: Some(Bytes::from(key)), ..Record::default() };
        Partitioning::new(partitioner).choose(&record, None, &partitions(count), 0).unwrap()
    }

    /// The values of Kafka's own tests (`UtilsTest.testMurmur2`).
    #[test]
    fn kafkas_hash() {
        let check = |key: &str, hash: i32| assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        check("21", -973_932_308);
        check("foobar", -790_332_482);
        check("a-little-bit-long-string", -985_981_536);
        check("a-little-bit-longer-string", -1_486_304_829);
        check("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971);
    }

    /// The values of the FNV authors' tests.
    #[test]
    fn daprs_hash() {
        let check = |key: &str, hash: u32| assert_eq!(fnv1a(key.as_bytes()), hash, "{key}");
        check("", 0x811c_9dc5);
        check("a", 0xe40c_292c);
        check("foobar", 0xbf9c_f968);
    }

    #[test]
    fn a_key_has_one_partition() {
        for partitioner in [Partitioner::Murmur2, Partitioner::Fnv1a] {
            let first = chosen(partitioner, "key", 7);
            assert!((0..7).contains(&first) && first == chosen(partitioner, "key", 7));
        }
    }

    #[test]
    fn what_the_publisher_names() {
        let check = |text: &str, expected: Option<i32>| {
            let metadata = vec![(PARTITION_NAME.to_owned(), text.to_owned())];
            let message = Message { topic: "t".into(), key: None, data: Vec::new(), metadata };
            assert_eq!(named(&message).ok().flatten(), expected, "{text}");
        };
        check("3", Some(3));
        check("-1", None);
        check("x", None);
        let partitioning = Partitioning::new(Partitioner::Murmur2);
        let refused = partitioning.choose(&Record::default(), Some(3), &partitions(3), 0);
        assert!(matches!(refused, Err(Failure::Invalid(text)) if text.contains(PARTITION_NAME)));
    }

    #[test]
    fn without_a_key_one_partition_after_the_other() {
        let partitioning = Partitioning::new(Partitioner::Murmur2);
        let topic: Rc<str> = "t".into();
        let first = partitioning.sticky(&topic, &partitions(3), 100);
        assert_eq!(first, partitioning.sticky(&topic, &partitions(3), STICKY_BYTES));
        let second = partitioning.sticky(&topic, &partitions(3), 100);
        assert_ne!(first, second);
        // One that nobody leads is left.
        let mut lost = partitions(3);
        lost[second as usize].leader = None;
        assert_ne!(second, partitioning.sticky(&topic, &lost, 100));
        assert_eq!(partitioning.sticky(&"one".into(), &partitions(1), 100), 0);
    }
}
