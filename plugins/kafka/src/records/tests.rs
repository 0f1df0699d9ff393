//! The format against the codec crate's, claims that are not kept, and what becomes of messages.

use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use kafka_protocol::records as oracle;
use whimbrel_sdk::{Config, Message, Property};

use super::batch::Fetched;
use super::*;
use crate::config::{Codec, Settings};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let all = [("brokers", "b:1"), ("authType", "none")].into_iter().chain(pairs.iter().copied());
    let properties = all.map(|(name, value)| Property { name: name.into(), value: value.into() }).collect();
    Settings::of(&Config { name: "bus".into(), properties, instance: "i".into() }).unwrap()
}

fn record(offset: i64, key: Option<&'static [u8]>, value: Option<Vec<u8>>) -> Record {
    let headers = vec![
        (Bytes::from_static(b"name"), Some(Bytes::from_static(b"value"))),
        (Bytes::from_static(b"none"), None),
        (Bytes::from_static(b""), Some(Bytes::new())),
    ];
    let key = key.map(Bytes::from_static);
    Record { offset, timestamp: 1_700_000_000_000 + offset * 1000, key, value: value.map(Bytes::from), headers }
}

fn several() -> Vec<Record> {
    vec![
        record(0, Some(b"k"), Some(b"hello".to_vec())),
        record(1, None, None),
        record(2, Some(b"\xff"), Some((0..=255).collect())),
        record(3, Some(b""), Some(vec![7; 200_000])),
    ]
}

fn written(records: &[Record], codec: Codec) -> Bytes {
    encode(records, codec).unwrap().stamped(Stamp { producer: 5, epoch: 2, sequence: 9 })
}

#[test]
fn what_is_written_is_read() {
    for codec in CODECS {
        let fetched = read(written(&several(), codec), 0).unwrap();
        assert_eq!(fetched, Fetched { records: several(), next_offset: 4 }, "{codec:?}");
    }
}

#[test]
fn the_codec_crate_reads_it() {
    let bytes = written(&several(), Codec::None);
    let set = oracle::RecordBatchDecoder::decode(&mut bytes.clone()).unwrap();
    assert_eq!(set.records.len(), 4);
    for (theirs, ours) in set.records.iter().zip(several()) {
        assert_eq!((theirs.offset, theirs.timestamp), (ours.offset, ours.timestamp));
        assert_eq!((&theirs.key, &theirs.value), (&ours.key, &ours.value));
        assert_eq!((theirs.producer_id, theirs.producer_epoch), (5, 2));
        assert_eq!(i64::from(theirs.sequence), 9 + ours.offset);
        assert_eq!(theirs.headers.len(), 3);
    }
}

#[test]
fn it_reads_the_codec_crates() {
    let theirs = |offset: i64| oracle::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: oracle::TimestampType::Creation,
        offset,
        sequence: i32::try_from(offset).unwrap(),
        timestamp: 1_700_000_000_000 - offset,
        key: None,
        value: Some(Bytes::from_static(b"v")),
        headers: IndexMap::new(),
    };
    let mut bytes = BytesMut::new();
    let options = oracle::RecordEncodeOptions { version: 2, compression: oracle::Compression::None };
    for range in [10..13, 20..22] {
        let records: Vec<_> = range.map(theirs).collect();
        oracle::RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    }
    let bytes = bytes.freeze();
    let offsets = |fetched: &Fetched| fetched.records.iter().map(|record| record.offset).collect::<Vec<_>>();
    let all = read(bytes.clone(), 10).unwrap();
    assert_eq!((offsets(&all), all.next_offset), (vec![10, 11, 12, 20, 21], 22));
    assert_eq!(all.records[0].timestamp, 1_700_000_000_000 - 10);
    assert_eq!(offsets(&read(bytes.clone(), 12).unwrap()), [12, 20, 21]);
    // What is cut off is left for the next fetch.
    let cut = read(bytes.slice(..bytes.len() - 1), 10).unwrap();
    assert_eq!((offsets(&cut), cut.next_offset), (vec![10, 11, 12], 13));
}

#[test]
fn broken_batches_are_told() {
    let good = written(&several(), Codec::None);
    for at in [16, 21, 30, good.len() - 1] {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x55;
        assert!(read(bytes.into(), 0).is_err(), "a flipped byte at {at}");
    }
    // What comes before a broken one is kept.
    let mut two = [good.as_ref(), good.as_ref()].concat();
    *two.last_mut().unwrap() ^= 1;
    assert_eq!(read(two.into(), 0).unwrap().records.len(), 4);
    assert_eq!(read(Bytes::new(), 7).unwrap().next_offset, 7);
}

/// Whatever the bytes say, nothing panics and nothing grows beyond what is there.
#[test]
fn claims_are_checked() {
    let mut random = fastrand::Rng::with_seed(7);
    for codec in CODECS {
        let good = written(&several()[..3], codec).to_vec();
        for _ in 0..500 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(21..bytes.len());
                bytes[at] = random.u8(..);
            }
            let crc = crc32c::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            drop(read(bytes.into(), 0));
        }
    }
}

fn message(data: &[u8], key: Option<&str>, metadata: &[(&str, &str)]) -> Message {
    let metadata = metadata.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Message { topic: "orders".into(), key: key.map(Into::into), data: data.to_vec(), metadata }
}

#[test]
fn keys() {
    let check = |key, metadata: &[(&str, &str)], expected: Option<&str>| {
        let record = to_record(message(b"x", key, metadata), 0, &settings(&[]));
        assert_eq!(record.key.as_deref(), expected.map(str::as_bytes), "{key:?} {metadata:?}");
    };
    check(None, &[], None);
    check(Some("a"), &[("partitionKey", "b")], Some("a"));
    check(None, &[("__key", "c"), ("partitionKey", "b")], Some("b"));
    check(None, &[("__key", "c")], Some("c"));
}

#[test]
fn headers() {
    let sent = message(b"x", None, &[("a", "1"), ("b", "2"), ("a", "3"), ("secret", "s")]);
    let record = to_record(sent, 0, &settings(&[("excludeHeaderMetaRegex", "^sec")]));
    let pairs: Vec<_> = record.headers.iter().map(|(name, value)| (&name[..], value.as_deref().unwrap())).collect();
    assert_eq!(pairs, [(&b"a"[..], &b"3"[..]), (b"b", b"2")]);
}

#[test]
fn tombstones() {
    let record = to_record(message(b"null", Some("k"), &[]), 0, &settings(&[]));
    assert_eq!(record.value, None);
    assert_eq!(to_delivery_message("orders", 0, record, &settings(&[])).data, b"null");
    assert!(to_record(message(b"", Some("k"), &[]), 0, &settings(&[])).value.is_some());
}

#[test]
fn deliveries() {
    let record = Record {
        offset: 42,
        timestamp: 1_700_000_000_123,
        key: Some(Bytes::from_static(b"a key")),
        value: Some(Bytes::from_static(b"\0")),
        headers: vec![
            (Bytes::from_static(b"h"), Some(Bytes::from_static(b"a/b ~"))),
            (Bytes::from_static(b"__offset"), Some(Bytes::from_static(b"mine"))),
            (Bytes::from_static(b"null"), None),
        ],
    };
    let told = |settings: &Settings| {
        let message = to_delivery_message("orders", 3, record.clone(), settings);
        assert_eq!((message.topic.as_str(), message.key.as_deref()), ("orders", Some("a key")));
        assert_eq!(message.data, b"\0");
        message.metadata.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" | ")
    };
    assert_eq!(
        told(&settings(&[])),
        "__key=a key | __offset=42 | __topic=orders | __timestamp=1700000000123 | __partition=3 | h=a/b ~ | \
         __offset=mine | null="
    );
    assert_eq!(
        told(&settings(&[("escapeHeaders", "true"), ("excludeHeaderMetaRegex", "null|__offset")])),
        "__key=a+key | __offset=42 | __topic=orders | __timestamp=1700000000123 | __partition=3 | h=a%2Fb+~"
    );
}
