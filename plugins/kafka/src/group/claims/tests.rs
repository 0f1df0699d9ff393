use super::*;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as Assigned;
use kafka_protocol::messages::consumer_protocol_subscription::TopicPartition as Owned;
use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

fn topics(pairs: &[(&str, &[i32])]) -> Topics {
    pairs.iter().map(|(topic, partitions)| ((*topic).to_owned(), partitions.to_vec())).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn what_one_member_writes_the_other_reads() {
    let owned = topics(&[("a", &[0, 3]), ("b", &[1])]);
    for strategy in Strategy::ALL {
        let metadata = subscription(strategy, &names(&["a", "b"]), &owned, 7);
        let claim = claim(strategy, "m", &metadata).unwrap();
        assert_eq!(claim.topics, names(&["a", "b"]));
        let tells = matches!(strategy, Strategy::Sticky | Strategy::CooperativeSticky);
        let expected = if tells { (owned.clone(), 7) } else { (Topics::new(), -1) };
        assert_eq!((claim.owned, claim.generation), expected, "{strategy:?}");
    }
    assert_eq!(assigned(&assignment(&owned)), Some(owned));
    assert_eq!(assigned(&[]), Some(Topics::new()));
}

/// The codec of the requests is the independent witness.
#[test]
fn other_clients_understand_it() {
    let owned = topics(&[("a", &[0, 3])]);
    let mut metadata = subscription(Strategy::CooperativeSticky, &names(&["a", "b"]), &owned, 7);
    let version = metadata.get_i16();
    let read = ConsumerProtocolSubscription::decode(&mut metadata, version).unwrap();
    assert!(metadata.is_empty());
    assert_eq!(read.topics, [StrBytes::from("a"), StrBytes::from("b")]);
    assert_eq!((read.generation_id, &read.owned_partitions[0].partitions), (7, &vec![0, 3]));
    let mut metadata = subscription(Strategy::Range, &names(&["a"]), &owned, 7);
    assert_eq!(metadata.get_i16(), 0);
    assert_eq!(ConsumerProtocolSubscription::decode(&mut metadata, 0).unwrap().topics, [StrBytes::from("a")]);
    let mut given = assignment(&owned);
    let version = given.get_i16();
    let read = ConsumerProtocolAssignment::decode(&mut given, version).unwrap();
    assert_eq!(read.assigned_partitions[0].partitions, [0, 3]);
}

#[test]
fn other_clients_are_understood() {
    let topic = |name| TopicName(StrBytes::from(name));
    for version in 0..=3 {
        let said = ConsumerProtocolSubscription::default()
            .with_topics(vec![StrBytes::from("a")])
            .with_user_data(None)
            .with_owned_partitions(vec![Owned::default().with_topic(topic("a")).with_partitions(vec![2, 1])])
            .with_generation_id(5);
        let mut metadata = BytesMut::new();
        metadata.put_i16(version);
        said.encode(&mut metadata, version).unwrap();
        let claim = claim(Strategy::CooperativeSticky, "m", &metadata).unwrap();
        assert_eq!(claim.topics, names(&["a"]));
        assert_eq!(claim.owned, if version >= 1 { topics(&[("a", &[1, 2])]) } else { Topics::new() });
        assert_eq!(claim.generation, if version >= 2 { 5 } else { -1 });
    }
    let given = vec![Assigned::default().with_topic(topic("a")).with_partitions(vec![1])];
    let mut bytes = BytesMut::new();
    bytes.put_i16(3);
    ConsumerProtocolAssignment::default().with_assigned_partitions(given).encode(&mut bytes, 3).unwrap();
    assert_eq!(assigned(&bytes), Some(topics(&[("a", &[1])])));
}

#[test]
fn nonsense_is_refused_and_costs_nothing() {
    let sound = subscription(Strategy::CooperativeSticky, &names(&["a"]), &topics(&[("a", &[0])]), 7);
    for length in 0..sound.len() {
        assert_eq!(claim(Strategy::CooperativeSticky, "m", &sound[..length]), None, "{length}");
    }
    for seed in 0..2000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = sound.to_vec();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(0..bytes.len());
            bytes[at] = rng.u8(..);
        }
        for strategy in Strategy::ALL {
            claim(strategy, "m", &bytes);
        }
        assigned(&bytes);
    }
    assert_eq!(claim(Strategy::Range, "m", &[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
}
