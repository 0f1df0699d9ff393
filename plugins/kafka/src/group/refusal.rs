//! What a coordinator's error codes mean to a member.

use kafka_protocol::ResponseError;

use crate::cluster::CallError;
use crate::failure::of_group;

/// Why a request of a member came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    /// Somebody comes or goes: join again.
    Rebalance,
    /// The group does not know this member any more, or knows a later generation. What it read is somebody else's.
    Lost(String),
    /// Another broker coordinates the group, or none for now: look it up, and ask again.
    Elsewhere(String),
    /// Ask again later.
    Later(String),
    /// Somebody must act: a permission, a setting.
    Fatal(whimbrel_sdk::Failure),
}

impl Refusal {
    /// What a code means; `Ok` for none.
    pub(crate) fn of(code: i16, group: &str) -> Result<(), Self> {
        use ResponseError as E;
        let Some(error) = ResponseError::try_from_code(code) else { return Ok(()) };
        let why = format!("group {group:?}: {error}");
        Err(match error {
            E::RebalanceInProgress => Self::Rebalance,
            E::UnknownMemberId | E::IllegalGeneration | E::FencedInstanceId | E::FencedMemberEpoch => Self::Lost(why),
            E::NotCoordinator | E::CoordinatorNotAvailable | E::CoordinatorLoadInProgress => Self::Elsewhere(why),
            E::GroupAuthorizationFailed => Self::Fatal(of_group(error, group)),
            E::TopicAuthorizationFailed => Self::Fatal(whimbrel_sdk::Failure::Unauthorized(format!(
                "the Kafka user (metadata saslUsername) may not read a topic of the consumer group {group:?}: grant it READ \
                 on the topic"
            ))),
            E::InvalidSessionTimeout => Self::Fatal(whimbrel_sdk::Failure::Invalid(format!(
                "metadata sessionTimeout: outside of what the broker allows (group.min.session.timeout.ms and \
                 group.max.session.timeout.ms): {error}"
            ))),
            E::InvalidGroupId => Self::Fatal(whimbrel_sdk::Failure::Invalid(format!(
                "metadata consumerGroup or consumerID: the broker refuses the group's name {group:?}: {error}"
            ))),
            E::InconsistentGroupProtocol => Self::Later(format!(
                "group {group:?} has members that assign partitions in other ways (metadata \
                 consumerGroupRebalanceStrategy), or uses the name for something else: {error}"
            )),
            _ => Self::Later(why),
        })
    }

    /// What it means that there is no answer.
    pub(crate) fn of_call(error: CallError) -> Self {
        match error {
            CallError::Unsent(why) | CallError::Unanswered(why) => Self::Elsewhere(why),
            CallError::Failure(failure) => Self::Fatal(failure),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Rebalance => "the group is being rebalanced".to_owned(),
            Self::Lost(why) | Self::Elsewhere(why) | Self::Later(why) => why.clone(),
            Self::Fatal(failure) => format!("{failure:?}"),
        }
    }
}
