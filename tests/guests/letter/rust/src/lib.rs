//! Letters that some may read and others may open, in Rust: the same contract as in the other languages of this folder.

use aegis_module::{
    Code, Command, Context, Entity, Field, Model, Refusal, Response, Rights, Route, Value, Who, export, json,
    refuse,
};

export!(letter, routes);

fn letter() -> Model {
    Model::new("letter")
        .field("text", Field::text())
        .allow(Who::Role("reader"), Rights::READ | Rights::LIST_ALL)
        .allow(Who::Role("editor"), Rights::CREATE | Rights::READ | Rights::LIST_ALL | Rights::UPDATE)
        .allow(Who::Claim("team", "post"), Rights::DELETE)
        .allow(Who::Anyone, Rights::READ)
        .deny(
            Who::Role("former"),
            Rights::READ | Rights::LIST_ALL | Rights::UPDATE | Rights::DELETE | Rights::COMMAND,
        )
        .command(
            Command::about_one("decrypt", |_, letter, _| Ok(json!({ "clear": letter.data["text"] })))
                .allow(&["decrypt", "auditor"]),
        )
        .command(Command::about_one("who", who))
        .route(
            Route::get("/{id}/seal", |request, _| {
                let id = request.param("id").unwrap_or_default();
                Ok(Response::new(200).with_text(&format!("sealed {id}")))
            })
            .allow(&["auditor"]),
        )
        .route(Route::get("//post/hours", |_, _| Ok(Response::new(200).with_text("nine to five"))).public())
        .route(Route::get("//post/desk", |_, _| Ok(Response::new(200).with_text("a desk"))))
}

fn who(_: Value, _: Entity, context: &Context) -> Result<Value, Refusal> {
    let Some(caller) = &context.principal else {
        return Err(refuse(Code::Denied, "nobody says who asks"));
    };
    let claims: Value = caller.claims.as_deref().unwrap_or("{}").parse()?;
    Ok(json!({ "subject": caller.subject, "roles": caller.roles, "team": claims["team"] }))
}
