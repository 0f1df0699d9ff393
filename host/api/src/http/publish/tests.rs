//! The query's metadata.

use super::metadata;

fn check(query: &str, expect: &[(&str, &str)]) {
    let expect: Vec<(String, String)> = expect.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    assert_eq!(metadata(query), expect, "{query}");
}

#[test]
fn metadata_of_a_query() {
    check("", &[]);
    check("metadata.a=1", &[("a", "1")]);
    check("metadata.a=1&metadata.a=2&metadata.b=3", &[("a", "1"), ("b", "3")]);
    check("metadata.rawPayload=true&other=1&metadata", &[("rawPayload", "true")]);
    check("Metadata.a=1", &[]);
    check("metadata.a", &[("a", "")]);
    check("metadata.a=", &[("a", "")]);
    check("metadata.=x", &[("", "x")]);
    check("metadata.a=x+y%2Bz", &[("a", "x y+z")]);
    check("metadata%2Ea=1", &[("a", "1")]);
    check("metadata.a=b=c", &[("a", "b=c")]);
    check("&&metadata.a=1&", &[("a", "1")]);
    check("metadata.a=%zz&metadata.b=1", &[("b", "1")]);
    check("metadata.a=1;metadata.b=2", &[]);
    check("metadata.a=%FF", &[("a", "\u{fffd}")]);
}
