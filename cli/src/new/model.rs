//! What a document of the model `@NAME@` is, and what may become of it.

use aegis_module::{Code, Command, Context, Document, Entity, Field, Model, Refusal, Value, export, refuse};

export!(model);

fn model() -> Model {
    Model::new("@NAME@")
        .endpoint("@ENDPOINT@")
        .version("1.0.0")
        // A document without it is refused.
        .field("title", Field::text().required().longest(200))
        // New documents are open unless they say so.
        .field("closed", Field::boolean().default(false))
        .validate(validate)
        .command(Command::about_one("close", close).description("Closes it.").saves())
}

/// Has the last word before a document is stored; there is no `before` when it is new.
fn validate(after: &Document, before: Option<&Document>, _: &Context) -> Result<(), Refusal> {
    match before {
        Some(before) if before["closed"] == true && before["title"] != after["title"] => {
            Err(refuse(Code::Conflict, "it is closed").detail("title", "cannot change any more"))
        }
        _ => Ok(()),
    }
}

/// POST /aegis/api/models/@ENDPOINT@/ID/close; what it returns is stored, because the command `saves`.
fn close(_: Value, mut document: Entity, _: &Context) -> Result<Document, Refusal> {
    document.data["closed"] = true.into();
    Ok(document.data)
}
