//! Against the simplest model that could be right: a list of numbers.

use super::*;

#[test]
fn confirms_in_any_order() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut confirms = Confirms::default();
        let mut model: Vec<u64> = Vec::new();
        let mut next = 1;
        for _ in 0..500 {
            if rng.bool() {
                confirms.push(next);
                model.push(next);
                next += 1;
                continue;
            }
            let (tag, multiple) = (rng.u64(..next + 2), rng.bool());
            let hit = |number: &u64| tag < next && if multiple { *number <= tag } else { *number == tag };
            let expected: Vec<u64> = model.iter().copied().filter(|number| hit(number)).collect();
            model.retain(|number| !hit(number));
            assert_eq!(confirms.take(tag, multiple), expected, "seed {seed}, tag {tag}, multiple {multiple}");
            let span = model.first().map_or(0, |first| next - first);
            assert_eq!(confirms.span() as u64, span, "seed {seed}");
        }
        assert!(confirms.iter_mut().map(|number| *number).eq(model.iter().copied()));
        assert_eq!(confirms.take_all(), model);
        assert_eq!(confirms.span(), 0);
    }
}
