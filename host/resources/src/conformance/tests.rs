use super::*;

const COMPONENT: &str =
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: bus}\nspec: {type: pubsub.redis}\n";

fn read(spec: &str) -> Result<Conformance, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bus.yaml");
    let document = format!("apiVersion: whimbrel.dev/v1alpha1\nkind: Conformance\nspec:\n{spec}");
    std::fs::write(&file, format!("{COMPONENT}---\n{document}")).unwrap();
    conformance(&file).map(|(_, conformance, _)| conformance).map_err(|problems| problems.to_string())
}

#[test]
fn everything_is_read() {
    let spec = "  address: 127.0.0.1:6379
  proxyListen: 127.0.0.1:7000
  start: [broker, up]
  stop: [broker, down]
  kill: [broker, kill]
  read: [reader, '{topic}']
  prepare: [maker, 'x{topic}']
  deleteTopic: [deleter, '{topic}']
  deleteGroup: [deleter, '{topic}', '{group}']
  fill: [filler]
  relieve: [reliever, '{topic}']
  rotate: [changer, '{secret}']
  rotates: password
  secret: hush
  tls:
    metadata: {host: 'b:2', caCert: good}
    refused: [{metadata: {caCert: other}, names: caCert}]
  dedup: true
  lease: 2s
  maxMessageBytes: 1000
  drain: 1s
  history: false
  notSupported: [{check: b9, reason: it cannot}]
";
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let expected = Conformance {
        address: Some("127.0.0.1:6379".to_owned()),
        proxy_listen: vec![([127, 0, 0, 1], 7000).into()],
        start: words(&["broker", "up"]),
        stop: words(&["broker", "down"]),
        kill: words(&["broker", "kill"]),
        read: words(&["reader", "{topic}"]),
        prepare: words(&["maker", "x{topic}"]),
        delete_topic: words(&["deleter", "{topic}"]),
        delete_group: words(&["deleter", "{topic}", "{group}"]),
        fill: words(&["filler"]),
        relieve: words(&["reliever", "{topic}"]),
        rotate: words(&["changer", "{secret}"]),
        rotates: Some("password".to_owned()),
        secret: Some("hush".to_owned()),
        tls: Some(TlsVariants {
            metadata: pairs(&[("host", "b:2"), ("caCert", "good")]),
            refused: vec![Refused { metadata: pairs(&[("caCert", "other")]), names: "caCert".to_owned() }],
        }),
        dedup: true,
        lease: Duration::from_secs(2),
        max_message_bytes: Some(1000),
        drain: Duration::from_secs(1),
        history: false,
        not_supported: vec![Exception { check: "B9".to_owned(), reason: "it cannot".to_owned() }],
    };
    assert_eq!(read(spec), Ok(expected));
    assert_eq!(read("  {}\n"), Ok(Conformance::default()));
}

#[test]
fn what_is_wrong_is_said() {
    let check = |spec: &str, text: &str| {
        let problems = read(spec).unwrap_err();
        assert!(problems.contains(text), "{text:?} is not in {problems}");
    };
    check("  leese: 2s\n", "unknown key (did you mean lease?)");
    check("  lease: soon\n", "bus.yaml:9: spec.lease: \"soon\" is not a duration");
    check("  address: a:1\n  stop: [x]\n", "stop without start");
    check("  start: [x]\n", "no address");
    check("  read: [x]\n", "no argument holds {topic}");
    check("  deleteTopic: [x]\n", "no argument holds {topic}");
    check("  deleteGroup: [x, '{topic}']\n", "no argument holds {group}");
    check("  address: a:1\n  fill: [x]\n", "one of fill and relieve without the other");
    check("  address: a:1\n  relieve: [x]\n", "one of fill and relieve without the other");
    check("  fill: [x]\n  relieve: [x]\n", "no address");
    check("  deleteTopic: [x, '{topic}']\n", "no address");
    check("  address: a:1\n  rotate: [x, '{secret}']\n", "one of rotate and rotates without the other");
    check("  rotate: [x]\n  rotates: password\n", "no argument holds {secret}");
    check("  tls: {refused: [{metadata: {a: b}, names: a}]}\n", "metadata: is missing");
    check("  tls: {metadata: {a: b}}\n", "refused: is missing");
    check("  tls: {metadata: {a: b}, refused: [{metadata: {a: c}}]}\n", "names: is missing");
    check("  dedup: perhaps\n", "\"perhaps\" is not true or false");
    check("  notSupported: [{check: B1}]\n", "reason: is missing");
    check("  proxyListen: here\n", "is not an address such as");
    check("  address: a:1,b:2\n  proxyListen: 127.0.0.1:7000\n", "proxyListen has 1 addresses, and address has 2");
}
