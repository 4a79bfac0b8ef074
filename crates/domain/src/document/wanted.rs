//! What a client wants to change, said as a merge patch whatever form it came in: for code that has its own way of
//! changing a document.

use serde_json::{Map, Value};

use super::{
    host::{Null, Stored},
    merge,
    mistakes::Mistakes,
    object, patch,
};
use crate::{catalog::Model, problem::Problem};

/// In which form a client says what it wants to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All properties.
    Replacement,
    /// A merge patch (RFC 7396).
    MergePatch,
    /// A JSON patch (RFC 6902).
    JsonPatch,
}

/// The changes that `input` asks for, as a merge patch without the host's fields. A merge patch cannot say null: what is
/// to become null is told as what is to be removed.
///
/// # Errors
/// As [`replace`](super::replace), [`merge`](super::merge()) and [`patch`](super::patch()), but the rules of the model are
/// not asked.
pub fn wanted(
    model: &Model,
    current: &[u8],
    form: Form,
    input: Value,
) -> Result<Map<String, Value>, Problem> {
    let stored = Stored::read(model, current)?;
    let mut mistakes = Mistakes::default();
    let changes = match form {
        Form::MergePatch => {
            let mut patch = object(input)?;
            stored.take_unchanged(model, &mut patch, Null::IsRemoval, &mut mistakes);
            patch
        }
        Form::Replacement => {
            let mut properties = object(input)?;
            stored.take_unchanged(model, &mut properties, Null::IsNothing, &mut mistakes);
            merge::difference(&stored.properties, &properties)
        }
        Form::JsonPatch => {
            let operations = patch::read(input)?;
            let mut properties = object(patch::apply(stored.whole(model), operations)?)?;
            stored.take_all(model, &mut properties, &mut mistakes);
            merge::difference(&stored.properties, &properties)
        }
    };
    mistakes.finish()?;
    Ok(changes)
}

/// When a stored document was created and when it was last changed, milliseconds since 1970.
///
/// # Errors
/// When the document is damaged.
pub fn times(model: &Model, body: &[u8]) -> Result<(u64, u64), Problem> {
    Stored::read_times(model, body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{catalog::Catalog, document, module};

    fn stored() -> (std::sync::Arc<Model>, bytes::Bytes) {
        let spec = module::parse("name = \"order\"\n[fields]\ntext = \"text\"\n", "test").unwrap();
        let model = std::sync::Arc::clone(&Catalog::build(vec![spec]).unwrap().models()[0]);
        let stamp = document::Stamp { now_ms: 1_700_000_000_123, fresh_id: "a".to_owned() };
        let draft = document::create(&model, json!({"text": "x", "n": 1}), &stamp).unwrap();
        (model, draft.body)
    }

    #[test]
    fn every_form_comes_to_the_same_merge_patch() {
        let (model, body) = stored();
        let wanted = |form, input| Value::Object(wanted(&model, &body, form, input).unwrap());
        let expected = json!({"text": "y", "n": null});
        assert_eq!(wanted(Form::MergePatch, json!({"text": "y", "n": null, "id": "a"})), expected);
        assert_eq!(wanted(Form::Replacement, json!({"text": "y", "revision": 1})), expected);
        let patch = json!([{"op": "replace", "path": "/text", "value": "y"}, {"op": "remove", "path": "/n"}]);
        assert_eq!(wanted(Form::JsonPatch, patch), expected);
    }

    #[test]
    fn the_fields_of_the_host_stay_the_hosts() {
        let (model, body) = stored();
        for (form, input) in [
            (Form::MergePatch, json!({"id": "b"})),
            (Form::Replacement, json!({"revision": 9})),
            (Form::JsonPatch, json!([{"op": "remove", "path": "/createTime"}])),
        ] {
            assert!(wanted(&model, &body, form, input).is_err(), "{form:?}");
        }
    }

    #[test]
    fn a_document_tells_when_it_was_made() {
        let (model, body) = stored();
        assert_eq!(times(&model, &body), Ok((1_700_000_000_123, 1_700_000_000_123)));
        assert!(times(&model, b"{}").is_err());
    }
}
