use super::*;
use bytes::BytesMut;
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

/// A batch of so many records from an offset on.
fn batch(out: &mut BytesMut, offset: i64, count: i64, producer: i64, transactional: bool, control: bool) {
    let records: Vec<Record> = (0..count)
        .map(|index| Record {
            transactional,
            control,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: producer,
            producer_epoch: 0,
            timestamp_type: TimestampType::Creation,
            offset: offset + index,
            sequence: i32::try_from(index).unwrap(),
            timestamp: 0,
            key: control.then(|| Bytes::from_static(&[0, 0, 0, 0])),
            value: Some(Bytes::from_static(b"value")),
            headers: kafka_protocol::indexmap::IndexMap::default(),
        })
        .collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(out, &records, &options).unwrap();
}

fn shape(batches: &[Batch]) -> Vec<(bool, i64)> {
    batches.iter().map(|batch| (!batch.bytes.is_empty(), batch.end)).collect()
}

#[test]
fn batches_come_apart_and_the_rest_is_left() {
    let mut fetched = BytesMut::new();
    batch(&mut fetched, 5, 3, -1, false, false);
    batch(&mut fetched, 8, 1, -1, false, false);
    let whole = fetched.len();
    batch(&mut fetched, 9, 1, -1, false, false);
    let fetched = fetched.freeze();
    for cut in [whole, whole + 1, whole + 20, whole + HEADER_BYTES, fetched.len() - 1] {
        assert_eq!(shape(&split(fetched.slice(..cut), &[]).unwrap()), [(true, 8), (true, 9)], "{cut}");
    }
    assert_eq!(split(Bytes::new(), &[]).unwrap(), []);
}

#[test]
fn what_was_aborted_is_left_out() {
    let mut fetched = BytesMut::new();
    batch(&mut fetched, 0, 2, 7, true, false);
    batch(&mut fetched, 2, 2, 8, true, false);
    batch(&mut fetched, 4, 1, 7, false, false);
    batch(&mut fetched, 5, 1, 7, true, true);
    batch(&mut fetched, 6, 2, 7, true, false);
    batch(&mut fetched, 8, 1, 7, true, true);
    let aborted = [Aborted { producer: 7, first_offset: 0 }];
    let expected = [(false, 2), (true, 4), (true, 5), (false, 6), (true, 8), (false, 9)];
    assert_eq!(shape(&split(fetched.freeze(), &aborted).unwrap()), expected);
}

#[test]
fn a_transaction_that_began_before_the_fetch() {
    let mut fetched = BytesMut::new();
    batch(&mut fetched, 10, 1, 7, true, false);
    batch(&mut fetched, 11, 1, 7, true, true);
    batch(&mut fetched, 12, 1, 7, true, false);
    let aborted = [Aborted { producer: 7, first_offset: 3 }, Aborted { producer: 9, first_offset: 100 }];
    assert_eq!(shape(&split(fetched.freeze(), &aborted).unwrap()), [(false, 11), (false, 12), (true, 13)]);
}

#[test]
fn nonsense_is_an_error_or_the_end_but_never_a_panic() {
    let mut sound = BytesMut::new();
    batch(&mut sound, 5, 3, -1, false, false);
    let mut old = sound.to_vec();
    old[16] = 1;
    assert!(split(old.into(), &[]).unwrap_err().contains("format 1"));
    let mut short = sound.to_vec();
    short[8..12].copy_from_slice(&3_i32.to_be_bytes());
    assert!(split(short.into(), &[]).is_err());
    for seed in 0..2000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = sound.to_vec();
        for _ in 0..rng.usize(1..8) {
            let at = rng.usize(0..HEADER_BYTES);
            bytes[at] = rng.u8(..);
        }
        split(bytes.into(), &[]).ok();
    }
}
