//! What subscribers are told about a committed change.

use bytes::Bytes;

use crate::{json::write_text, timestamp};

/// A committed change of one document.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Position in the log.
    pub sequence: u64,
    /// Model name, upper case.
    pub model: &'a str,
    /// What happened.
    pub kind: EventKind,
    /// Document id.
    pub id: &'a str,
    /// Revision after the change; for a removal the revision removed.
    pub revision: u64,
    /// Commit time, milliseconds since 1970 UTC.
    pub time_ms: u64,
    /// The document after the change; for a removal the document removed, if it is at hand.
    pub body: Option<&'a [u8]>,
    /// For an update the merge patch (RFC 7396) from the document before to the document after, if it is known.
    pub changes: Option<&'a [u8]>,
}

/// What happened to a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created.
    Create,
    /// It was changed.
    Update,
    /// It was removed.
    Delete,
}

impl EventKind {
    /// What a version with this revision is: the first one is a creation.
    #[must_use]
    pub fn of_put(revision: u64) -> Self {
        if revision <= 1 { Self::Create } else { Self::Update }
    }

    /// The `type` of the event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

impl Event<'_> {
    /// The `name` of the event, such as `CREATEORDER`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}{}", self.kind.as_str(), self.model)
    }

    /// The `id` of the event.
    #[must_use]
    pub fn id_text(&self) -> String {
        format!("{}-{}", self.model, self.sequence)
    }

    /// The event object, JSON on one line. Its `id` is made of model and position, so that an event read
    /// twice has one id.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        // Names, punctuation and numbers take about 200 bytes.
        let content = [self.body, self.changes].into_iter().flatten().map(<[u8]>::len).sum::<usize>();
        let length = 200 + 4 * self.model.len() + self.id.len() + content;
        let mut out = Vec::with_capacity(length);
        let mut text = |name: &str, value: &str| {
            out.extend_from_slice(name.as_bytes());
            write_text(&mut out, value);
        };
        text("{\"id\":", &self.id_text());
        text(",\"name\":", &self.name());
        text(",\"type\":", self.kind.as_str());
        text(",\"modelName\":", self.model);
        text(",\"modelId\":", self.id);
        out.extend_from_slice(
            format!(",\"revision\":{},\"seq\":{}", self.revision, self.sequence).as_bytes(),
        );
        out.extend_from_slice(b",\"time\":");
        write_text(&mut out, &timestamp::format(self.time_ms));
        out.extend_from_slice(b",\"model\":");
        out.extend_from_slice(self.body.unwrap_or(b"null"));
        if let Some(changes) = self.changes {
            out.extend_from_slice(b",\"changes\":");
            out.extend_from_slice(changes);
        }
        out.push(b'}');
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, body: Option<&[u8]>, changes: Option<&[u8]>) -> String {
        let event = Event {
            sequence: 17,
            model: "ORDER",
            kind,
            id: "a\"b",
            revision: 2,
            time_ms: 1_767_225_599_007,
            body,
            changes,
        };
        let text = String::from_utf8(event.to_json().to_vec()).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        text
    }

    #[test]
    fn an_update_tells_the_whole_document_as_it_is_stored_and_what_is_new_in_it() {
        let body = br#"{"m":0,"n":1E5,"revision":2}"#;
        let changes = br#"{"n":1E5,"revision":2}"#;
        insta::assert_snapshot!(event(EventKind::of_put(2), Some(body), Some(changes)), @r#"{"id":"ORDER-17","name":"UPDATEORDER","type":"UPDATE","modelName":"ORDER","modelId":"a\"b","revision":2,"seq":17,"time":"2025-12-31T23:59:59.007Z","model":{"m":0,"n":1E5,"revision":2},"changes":{"n":1E5,"revision":2}}"#);
    }

    #[test]
    fn a_removal_tells_what_was_removed_if_it_is_at_hand() {
        insta::assert_snapshot!(event(EventKind::Delete, None, None), @r#"{"id":"ORDER-17","name":"DELETEORDER","type":"DELETE","modelName":"ORDER","modelId":"a\"b","revision":2,"seq":17,"time":"2025-12-31T23:59:59.007Z","model":null}"#);
    }

    #[test]
    fn the_first_revision_is_a_creation() {
        assert_eq!(EventKind::of_put(1), EventKind::Create);
        assert_eq!(EventKind::of_put(2), EventKind::Update);
    }
}
