use whimbrel_resources::Origin;

use super::*;

fn declared(topic: &str, path: &str, origin: Origin) -> Arc<Declared> {
    Arc::new(Declared {
        name: String::new(),
        pubsub: "bus".to_owned(),
        topic: topic.to_owned(),
        rules: Vec::new(),
        default_route: Some(path.to_owned()),
        dead_letter_topic: None,
        metadata: Vec::new(),
        bulk: None,
        scopes: Vec::new(),
        origin,
    })
}

fn check(own: &Own, expected: &[&str]) {
    let resources = [declared("a", "/a", Origin::Declarative), declared("b", "/b", Origin::Declarative)];
    let merged = own.merged(&resources);
    let paths: Vec<_> = merged.iter().filter_map(|one| one.default_route.as_deref()).collect();
    assert_eq!(paths, expected, "{own:?}");
}

#[test]
fn what_the_app_asks_for_takes_the_place_of_what_is_declared() {
    let own = |topic: &str| declared(topic, "/own", Origin::Programmatic);
    check(&Own::Unasked, &["/a", "/b"]);
    check(&Own::Told(Vec::new()), &["/a", "/b"]);
    check(&Own::Told(vec![own("c"), own("a")]), &["/own", "/b", "/own"]);
    check(&Own::Unreadable, &[]);
}
