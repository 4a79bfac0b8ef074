//! Bodies that writes answer with.

use aegis_domain::document::Draft;
use bytes::Bytes;
use serde_json::Value;

use crate::operation::Answer;

/// For one document.
pub(super) fn one(answer: Answer, id: &str, body: &Bytes) -> Bytes {
    match answer {
        Answer::Representation => body.clone(),
        Answer::Minimal | Answer::Blind => {
            let mut out = Vec::with_capacity(64);
            write_minimal(&mut out, id);
            out.into()
        }
    }
}

/// For several documents.
pub(super) fn many(answer: Answer, drafts: &[Draft]) -> Bytes {
    let length: usize = drafts.iter().map(|draft| draft.body.len() + 1).sum();
    let mut out = Vec::with_capacity(length + 2);
    out.push(b'[');
    for (index, draft) in drafts.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match answer {
            Answer::Representation => out.extend_from_slice(&draft.body),
            Answer::Minimal | Answer::Blind => write_minimal(&mut out, &draft.id),
        }
    }
    out.push(b']');
    out.into()
}

/// For several documents that were answered with before, in either form, without what they hold. `None` when it is no such
/// answer.
pub(super) fn many_blind(body: &Bytes) -> Option<Bytes> {
    let answered: Vec<Value> = serde_json::from_slice(body).ok()?;
    let mut out = vec![b'['];
    for (index, one) in answered.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // The host gives each document an id, which the minimal form calls otherwise.
        write_minimal(&mut out, one.get("id").or_else(|| one.get("modelId"))?.as_str()?);
    }
    out.push(b']');
    Some(out.into())
}

fn write_minimal(out: &mut Vec<u8>, id: &str) {
    out.extend_from_slice(br#"{"status":"ok","modelId":"#);
    serde_json::to_writer(&mut *out, id).expect("writing a text to memory cannot fail");
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(id: &str) -> Draft {
        Draft {
            id: id.to_owned(),
            revision: 1,
            body: Bytes::from(format!("{{\"id\":\"{id}\"}}")),
            changes: None,
        }
    }

    #[test]
    fn answers_are_json_whatever_the_id() {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let drafts = [draft("a"), draft("b")];
        assert_eq!(text(one(Answer::Representation, "a", &drafts[0].body)), r#"{"id":"a"}"#);
        assert_eq!(
            text(one(Answer::Minimal, "a\"b", &drafts[0].body)),
            r#"{"status":"ok","modelId":"a\"b"}"#
        );
        assert_eq!(text(many(Answer::Representation, &drafts)), r#"[{"id":"a"},{"id":"b"}]"#);
        let minimal = r#"[{"status":"ok","modelId":"a"},{"status":"ok","modelId":"b"}]"#;
        assert_eq!(text(many(Answer::Minimal, &drafts)), minimal);
        let whole = r#"[{"modelId":"x","status":"ok","id":"a"},{"big":1e400,"id":"b"}]"#;
        for answered in [whole, minimal] {
            assert_eq!(text(many_blind(&Bytes::from(answered)).unwrap()), minimal);
        }
        assert!(many_blind(&Bytes::from(r#"[{"text":"a"}]"#)).is_none());
    }
}
