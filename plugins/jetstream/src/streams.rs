//! Which stream a topic is kept in, and making one where that was asked for.

use whimbrel_sdk::{Failure, log};

use crate::api::{self, ApiError, Reply, StreamConfig, StreamInfo, StreamNames, StreamNamesRequest};
use crate::config::Creation;
use crate::failure::{number, of_api};
use crate::hub::{Hub, nanos};

/// The stream that a topic, perhaps with wildcards, is kept in. It is created if there is none and that was asked for.
///
/// # Errors
/// There is none, or there are several.
pub(crate) async fn provide(hub: &Hub, topic: &str) -> Result<String, Failure> {
    if let Some(name) = &hub.settings.stream {
        return named(hub, name, topic).await;
    }
    let mut found = find(hub, topic).await?;
    match (found.pop(), found.is_empty()) {
        (Some(stream), true) => Ok(stream),
        (Some(stream), false) => Err(Failure::Permanent(format!(
            "the topic {topic:?} is spread over several streams ({stream}, {}): metadata streamName says which one is meant",
            found.join(", ")
        ))),
        (None, _) => match &hub.settings.creation {
            Some(creation) => create(hub, creation, topic).await,
            None => Err(missing(topic)),
        },
    }
}

/// The stream that `streamName` names, if it takes the topic. The broker would make a consumer for any topic, to which
/// nothing would ever come.
async fn named(hub: &Hub, name: &str, topic: &str) -> Result<String, Failure> {
    match find(hub, topic).await {
        Ok(found) if !found.iter().any(|stream| stream == name) => {}
        // A user who may not ask knows what he does.
        Ok(_) | Err(Failure::Unauthorized(_)) => return Ok(name.to_owned()),
        Err(failure) => return Err(failure),
    }
    let info: Result<StreamInfo, ApiError> = hub.api(&format!("STREAM.INFO.{name}"), b"").await?;
    match (info, &hub.settings.creation) {
        // What another stream takes comes into this one, too.
        (Ok(info), _) if info.config.mirror.is_some() || !info.config.sources.is_empty() => Ok(name.to_owned()),
        (Ok(_), _) => Err(Failure::Permanent(format!(
            "the stream {name} does not take {topic:?}: add it to the stream's subjects (metadata streamSubjects counts only when the \
             stream is made), or correct metadata streamName"
        ))),
        (Err(error), Some(creation)) if error.err_code == number::STREAM_NOT_FOUND => {
            create(hub, creation, topic).await
        }
        (Err(error), None) if error.err_code == number::STREAM_NOT_FOUND => Err(Failure::Permanent(format!(
            "the stream {name} does not exist: create it, or set metadata streamCreate to auto, or correct metadata streamName"
        ))),
        (Err(error), _) => Err(of_api(&error, &format!("looking for the stream {name}"))),
    }
}

fn missing(topic: &str) -> Failure {
    Failure::Permanent(format!(
        "no stream takes the subject {topic:?}: create one (nats stream add --subjects {topic}), or set metadata streamCreate \
         to auto"
    ))
}

async fn find(hub: &Hub, topic: &str) -> Result<Vec<String>, Failure> {
    let request = api::write(&StreamNamesRequest { subject: topic });
    let found: Result<StreamNames, ApiError> = hub.api("STREAM.NAMES", &request).await?;
    match found {
        Ok(names) => Ok(names.streams.unwrap_or_default()),
        Err(error) => Err(of_api(&error, &format!("looking for the stream of {topic:?}"))),
    }
}

/// Creates the stream for a topic: the one that is named, or one for everything that begins with the same word.
async fn create(hub: &Hub, creation: &Creation, topic: &str) -> Result<String, Failure> {
    if let Some(name) = &hub.settings.stream {
        if !creation.subjects.iter().any(|subject| covers(subject, topic)) {
            return Err(Failure::Permanent(format!(
                "the topic {topic:?} is not among the subjects of the stream {name}: add it to metadata streamSubjects"
            )));
        }
        return created(hub, creation, name, &creation.subjects)
            .await?
            .map_err(|error| of_creation(&error, name, topic));
    }
    let word = topic.split('.').next().unwrap_or(topic);
    if word == "*" || word == ">" {
        return Err(Failure::Permanent(format!(
            "no stream takes the topic {topic:?}, and none can be made for a topic that begins with a wildcard: set metadata \
             streamName and streamSubjects"
        )));
    }
    let (name, subjects) = (hub.spelled(word, word), [word.to_owned(), format!("{word}.>")]);
    match created(hub, creation, &name, &subjects).await? {
        Ok(name) => Ok(name),
        // Some part of all this is kept elsewhere: only the topic itself, then.
        Err(error) if error.err_code == number::STREAMS_OVERLAP && topic != word => {
            let name = hub.spelled(topic, topic);
            created(hub, creation, &name, &[topic.to_owned()]).await?.map_err(|error| of_creation(&error, &name, topic))
        }
        Err(error) => Err(of_creation(&error, &name, topic)),
    }
}

async fn created(
    hub: &Hub,
    creation: &Creation,
    name: &str,
    subjects: &[String],
) -> Result<Result<String, ApiError>, Failure> {
    let config = StreamConfig {
        name,
        subjects,
        retention: "limits",
        storage: if creation.memory { "memory" } else { "file" },
        discard: if creation.refuse_new { "new" } else { "old" },
        num_replicas: creation.replicas,
        max_age: nanos(creation.max_age),
        max_bytes: creation.max_bytes,
        max_msgs: creation.max_messages,
        duplicate_window: creation.duplicate_window.map(nanos),
    };
    let answer: Result<serde_json::Value, ApiError> =
        hub.api(&format!("STREAM.CREATE.{name}"), &api::write(&config)).await?;
    Ok(answer.map(|_| {
        log::info(&format!("the stream {name} takes {}", subjects.join(", ")));
        hub.streams_created.set(true);
        name.to_owned()
    }))
}

fn of_creation(error: &ApiError, name: &str, topic: &str) -> Failure {
    let failure = of_api(error, &format!("creating the stream {name} for {topic:?} (metadata streamCreate)"));
    match (error.err_code, failure) {
        (number::STREAM_NAME_IN_USE, Failure::Permanent(text)) => Failure::Permanent(format!(
            "{text}. A stream of this name exists with other settings: add {topic} to its subjects, or set metadata streamName"
        )),
        (number::STREAMS_OVERLAP, Failure::Permanent(text)) => Failure::Permanent(format!(
            "{text}. Other streams keep a part of these subjects: create the stream yourself, or choose other streamSubjects"
        )),
        (_, failure) => failure,
    }
}

/// Whether every subject that `topic` stands for is one that `subject` stands for.
fn covers(subject: &str, topic: &str) -> bool {
    let (mut subject, mut topic) = (subject.split('.'), topic.split('.'));
    loop {
        match (subject.next(), topic.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(word)) if word != ">" => {}
            (Some(one), Some(other)) if one == other && one != "*" => {}
            _ => return false,
        }
    }
}

impl<T> Reply<T> {
    /// The answer, or the error in its place.
    pub(crate) fn split(self) -> Option<Result<T, ApiError>> {
        match (self.error, self.answer) {
            (Some(error), _) => Some(Err(error)),
            (None, Some(answer)) => Some(Ok(answer)),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn what_a_subject_covers() {
        for (subject, topic) in [
            ("a", "a"),
            ("a.>", "a.b"),
            ("a.>", "a.b.c"),
            ("*.b", "a.b"),
            (">", "a"),
            ("a.>", "a.*"),
            ("*", "*"),
            (">", ">"),
        ] {
            assert!(covers(subject, topic), "{subject} {topic}");
        }
        for (subject, topic) in
            [("a", "b"), ("a.>", "a"), ("*", "a.b"), ("a.b", "a"), ("*", ">"), ("a", "*"), ("a.b", "a.*")]
        {
            assert!(!covers(subject, topic), "{subject} {topic}");
        }
    }
}
