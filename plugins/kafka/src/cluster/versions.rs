//! Which version of each request both sides know.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use kafka_protocol::protocol::{Request, VersionRange};

use super::shape;

/// The versions a broker knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Versions(BTreeMap<i16, (i16, i16)>);

impl Versions {
    /// Reads the answer to `ApiVersions`, version 0: an error code, and for each key its oldest and newest version.
    /// `None`: it is not that.
    pub(crate) fn read(mut body: Bytes) -> Option<Self> {
        const ENTRY_BYTES: usize = 6;
        let (error, count) = (body.try_get_i16().ok()?, body.try_get_i32().ok()?);
        let sound =
            error == 0 && usize::try_from(count).is_ok_and(|count| body.len() == count.saturating_mul(ENTRY_BYTES));
        let entries =
            body.chunks_exact(ENTRY_BYTES).map(|mut entry| (entry.get_i16(), (entry.get_i16(), entry.get_i16())));
        (sound && count > 0).then(|| Self(entries.collect()))
    }

    /// The version to send a request in: the newest that the broker, the codec and `shape` know. Later ones name topics by
    /// ids, ask for several groups at once, or tell in a tag who leads a partition, for which nothing here has a use.
    pub(crate) fn choose<R: Request>(&self) -> Option<i16> {
        let (min, max) = *self.0.get(&R::KEY)?;
        let ours = VersionRange { min: R::VERSIONS.min, max: R::VERSIONS.max.min(shape::newest(R::KEY)) };
        let both = ours.intersect(&VersionRange { min, max });
        (!both.is_empty()).then_some(both.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{FetchRequest, HeartbeatRequest, ProduceRequest};

    fn read(error: i16, entries: &[(i16, i16, i16)]) -> Option<Versions> {
        let mut body = error.to_be_bytes().to_vec();
        body.extend((entries.len() as i32).to_be_bytes());
        for (key, min, max) in entries {
            body.extend([*key, *min, *max].iter().flat_map(|number| number.to_be_bytes()));
        }
        Versions::read(body.into())
    }

    #[test]
    fn the_newest_that_both_know() {
        let versions = read(0, &[(0, 0, 99), (1, 4, 10), (12, 90, 99)]).unwrap();
        assert_eq!(versions.choose::<ProduceRequest>(), Some(9));
        assert_eq!(versions.choose::<FetchRequest>(), Some(10));
        assert_eq!(versions.choose::<HeartbeatRequest>(), None);
    }

    #[test]
    fn what_is_no_answer() {
        assert_eq!(read(35, &[(0, 0, 9)]), None);
        assert_eq!(read(0, &[]), None);
        for bytes in [&b""[..], b"\0\0\x7f\xff\xff\xff", b"\0\0\0\0\0\x01\0"] {
            assert_eq!(Versions::read(Bytes::from_static(bytes)), None);
        }
    }
}
