//! Acknowledgements in as few frames as there can be: one for all messages up to a tag, where none before it is held.

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) tag: u64,
    /// All that are not settled up to the tag, too.
    pub(crate) multiple: bool,
}

/// The frames for these tags. `lowest`: the oldest tag of the channel that must not be acknowledged.
pub(crate) fn frames(mut tags: Vec<u64>, lowest: Option<u64>) -> Vec<Ack> {
    tags.sort_unstable();
    let free = lowest.map_or(tags.len(), |lowest| tags.partition_point(|tag| *tag < lowest));
    let (before, after) = tags.split_at(free);
    let multiple = before.last().map(|tag| Ack { tag: *tag, multiple: before.len() > 1 });
    multiple.into_iter().chain(after.iter().map(|tag| Ack { tag: *tag, multiple: false })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_as_can_be() {
        let check = |tags: &[u64], lowest: Option<u64>, expected: &[(u64, bool)]| {
            let expected: Vec<Ack> =
                expected.iter().map(|(tag, multiple)| Ack { tag: *tag, multiple: *multiple }).collect();
            assert_eq!(frames(tags.to_vec(), lowest), expected, "{tags:?} {lowest:?}");
        };
        check(&[], None, &[]);
        check(&[5], None, &[(5, false)]);
        check(&[3, 1, 2], None, &[(3, true)]);
        check(&[3, 1, 2], Some(4), &[(3, true)]);
        check(&[1, 3], Some(2), &[(1, false), (3, false)]);
        check(&[1, 2, 5, 6], Some(4), &[(2, true), (5, false), (6, false)]);
        check(&[5, 6], Some(4), &[(5, false), (6, false)]);
    }
}
