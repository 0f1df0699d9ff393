//! Tests of `template`.

use super::*;

fn fill(value: &str, variables: &[(&str, &str)]) -> Result<String, &'static str> {
    let surroundings = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let template = Template { surroundings: &surroundings, place: ("bus", "clientName") };
    template.fill(value).map(|filled| of_app(&filled, "me"))
}

#[test]
fn templates_are_filled_in_wherever_they_stand() {
    let check =
        |value: &str, expected: &str| assert_eq!(fill(value, &[("POD_NAME", "pod-0")]).as_deref(), Ok(expected));
    check("", "");
    check("plain {other} {", "plain {other} {");
    check("{appID}", "me");
    check("a-{appID}-{appID}b", "a-me-meb");
    check("{namespace}", "default.me");
    check("{podName}/{appID}", "pod-0/me");
    check("{appid}", "{appid}");
    check("{{appID}}", "{me}");
    assert_eq!(fill("{namespace}", &[("NAMESPACE", "prod")]).as_deref(), Ok("prod.me"));
}

#[test]
fn a_pod_that_nobody_knows_is_an_error() {
    assert!(fill("{podName}", &[]).is_err());
    assert!(fill("{podName}", &[("POD_NAME", "")]).is_err());
}

#[test]
fn uuids_are_fresh_for_each_place_and_stay_within_a_process() {
    let filled = fill("{uuid}{uuid}", &[]).expect("filled");
    let (one, other) = filled.split_at(36);
    assert_ne!(one, other);
    assert_eq!(uuid::Uuid::parse_str(one).map(|uuid| uuid.get_version_num()), Ok(4));
    assert_eq!(fill("{uuid}{uuid}", &[]), Ok(filled));
}
