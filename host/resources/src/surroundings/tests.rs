//! Tests of `surroundings`.

use super::*;

#[test]
fn some_variables_are_nobodys() {
    let free = Surroundings::default();
    let named: Surroundings = [("DAPR_ENV_KEYS".to_owned(), "A MY_REGION".to_owned())].into_iter().collect();
    for (name, freely, when_listed) in [
        ("MY_REGION", true, true),
        ("OTHER", true, false),
        ("MY_REGION2", true, false),
        ("APP_API_TOKEN", false, false),
        ("DAPR_API_TOKEN", false, false),
        ("dapr_api_token", false, false),
        ("A MY_REGION", false, false),
        ("DAPR_ENV_KEYS", false, false),
    ] {
        assert_eq!(free.may_refer_to(name), freely, "{name}");
        assert_eq!(named.may_refer_to(name), when_listed, "{name} when some are listed");
    }
}

#[test]
fn nothing_of_it_is_shown() {
    let secret: Surroundings = [("A".to_owned(), "hunter2".to_owned())].into_iter().collect();
    assert!(!format!("{secret:?}").contains("hunter2"));
    assert_eq!(secret.variable("A"), Some("hunter2"));
    assert_eq!((secret.namespace(), secret.own_namespace()), ("default", None));
}
