//! What is remembered, and that it is bounded.

use super::*;

#[test]
fn each_queue_has_its_own() {
    let mut later = Later::default();
    let earlier = Earlier { count: 3, due: None };
    later.put("q", "a".to_owned(), earlier);
    assert_eq!(later.take("other", "a"), None);
    assert_eq!(later.take("q", "a"), Some(earlier));
    assert_eq!(later.take("q", "a"), None);
}

#[test]
fn the_oldest_are_forgotten() {
    let mut later = Later::default();
    for number in 0..MESSAGES_MAX * 3 {
        later.put("q", number.to_string(), Earlier { count: 1, due: None });
    }
    assert!(later.young.len() + later.old.len() <= 2 * MESSAGES_MAX);
    assert!(later.take("q", "0").is_none());
    assert!(later.take("q", &(MESSAGES_MAX * 3 - 1).to_string()).is_some());
    assert!(later.take("q", &(MESSAGES_MAX * 2).to_string()).is_some());
}
