//! Things to do, in Rust: the same contract as in the other languages of this folder.

use aegis_module::{
    Code, Command, Context, Document, Entity, Field, Model, Refusal, Value,
    documents::{self, Query},
    export, json, refuse, setting,
};

export!(todo);

fn todo() -> Model {
    let mark = json!({ "type": "object", "properties": { "mark": { "type": "string", "maxLength": 3 } } });
    Model::new("todo")
        .endpoint("todo")
        .description("Something to do")
        .field("text", Field::text().required().longest(20))
        .field("isComplete", Field::boolean().default(false))
        .field("priority", Field::integer().indexed().min(1).max(5))
        .on_create(create)
        .validate(validate)
        .on_update(update)
        .on_delete(delete)
        .command(Command::about_one("complete", complete).description("It is done.").saves())
        .command(Command::about_one("shout", shout).arguments(&mark))
        .command(Command::about_one("alike", alike))
        .command(Command::about_one("stranger", |_, _, _| {
            Ok(documents::find("customer", "c1")?.map(|customer| customer.data))
        }))
}

/// What follows from the text.
fn counted(mut todo: Document) -> Document {
    let words = text(&todo).split_whitespace().count();
    todo["words"] = words.into();
    todo
}

fn text(todo: &Document) -> &str {
    todo["text"].as_str().unwrap_or_default()
}

fn is_complete(todo: &Document) -> bool {
    todo["isComplete"] == true
}

fn create(mut input: Document, _: &Context) -> Result<Document, Refusal> {
    if let Some(text) = input["text"].as_str() {
        input["text"] = text.trim().into();
    }
    Ok(counted(input))
}

fn validate(after: &Document, before: Option<&Document>, _: &Context) -> Result<(), Refusal> {
    if text(after).is_empty() {
        return Err(refuse(Code::Invalid, "there is nothing to do").detail("text", "is empty"));
    }
    if before.is_some_and(|before| is_complete(before) && text(before) != text(after)) {
        return Err(refuse(Code::Conflict, "it is done already"));
    }
    Ok(())
}

fn update(current: Entity, changes: Document, _: &Context) -> Result<Document, Refusal> {
    let mut todo = current.data;
    if let (Some(members), Some(changes)) = (todo.as_object_mut(), changes.as_object()) {
        members.extend(changes.clone());
        members.retain(|_, value| !value.is_null());
    }
    Ok(counted(todo))
}

fn delete(current: &Entity, _: &Context) -> Result<(), Refusal> {
    if is_complete(&current.data) {
        return Ok(());
    }
    Err(refuse(Code::Conflict, "it is to be done yet").detail("isComplete", "must be true"))
}

fn complete(_: Value, mut current: Entity, _: &Context) -> Result<Document, Refusal> {
    if is_complete(&current.data) {
        return Err(refuse(Code::Conflict, "it is done already"));
    }
    current.data["isComplete"] = true.into();
    Ok(current.data)
}

fn shout(arguments: Value, current: Entity, _: &Context) -> Result<String, Refusal> {
    let usual = setting("/mark").unwrap_or_else(|| ".".into());
    let mark = arguments["mark"].as_str().or(usual.as_str()).unwrap_or_default();
    Ok(text(&current.data).to_uppercase() + mark)
}

fn alike(_: Value, current: Entity, _: &Context) -> Result<Vec<String>, Refusal> {
    let filter = json!({ "priority": current.data["priority"] });
    let fields = vec!["text".to_owned()];
    let query = Query { filter, sort: fields.clone(), fields, ..Query::default() };
    let found = documents::search("todo", &query)?.items;
    let others = found.into_iter().filter(|other| other.id != current.id && other.revision > 0);
    Ok(others.map(|other| text(&other.data).to_owned()).collect())
}
