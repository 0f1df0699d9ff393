//! Which texts are a trace's, and which they are.

use super::TraceParent;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn check(text: &str, expect: Option<&str>) {
    assert_eq!(TraceParent::parse(text).as_ref().map(TraceParent::as_str), expect, "{text}");
}

#[test]
fn only_the_standards_form_is_one() {
    check(PARENT, Some(PARENT));
    check(&PARENT.replace("-01", "-02"), Some(&PARENT.replace("-01", "-02")));
    check(&format!("01{}-later", &PARENT[2..]), Some(&format!("01{}", &PARENT[2..])));
    check(&format!("01{}", &PARENT[2..]), Some(&format!("01{}", &PARENT[2..])));
    check("", None);
    check("garbage", None);
    check(TraceParent::NONE.as_str(), None);
    check(&format!("ff{}", &PARENT[2..]), None);
    check(&format!("{PARENT}-more"), None);
    check(&format!("01{}more", &PARENT[2..]), None);
    check(&PARENT.to_uppercase(), None);
    check("00-00000000000000000000000000000000-b7ad6b7169203331-01", None);
    check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None);
    check(&PARENT[..54], None);
    check(&PARENT[..52], None);
    check(&PARENT.replace("-01", "-0ß"), None);
}

#[test]
fn its_parts() {
    let parent = TraceParent::parse(PARENT).expect("a parent");
    assert_eq!(
        (parent.trace_id(), parent.span_id()),
        (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331)
    );
    assert!(parent.is_sampled() && parent.is_some());
    for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
        let parent = TraceParent::parse(&format!("{}{flags}", &PARENT[..53])).expect("a parent");
        assert_eq!(parent.is_sampled(), sampled, "{flags}");
    }
    assert!(!TraceParent::NONE.is_some());
}

#[test]
fn what_is_made_is_read_again() {
    for (trace, span, sampled) in [(1, 1, false), (u128::MAX, u64::MAX, true), (0xab << 64, 0xcd, true)] {
        let made = TraceParent::new(trace, span, sampled);
        let read = TraceParent::parse(made.as_str()).expect("valid");
        assert_eq!((read, read.trace_id(), read.span_id(), read.is_sampled()), (made, trace, span, sampled));
    }
}
