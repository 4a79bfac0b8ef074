//! A tour of the contract, in Rust: the same as in the other languages of this folder.

use std::cell::RefCell;

use aegis_module::{
    Code, Command, Context, Document, DocumentHooks, Entity, Event, Field, HeldDocument, Model, Origin,
    Refusal, Response, Route, RouteRequest, Value,
    documents::{self, Write},
    export, generation,
    http::{self, Request},
    is_cancelled, json,
    log::{self, Level},
    metrics, monotonic_ns, new_id, now_ms, random_bytes, refuse, secrets, setting, time_left_ms,
};

export!(tour, document_hooks, routes, events, handover);

/// What an instance remembers.
#[derive(Debug, Default)]
struct Memory {
    greeting: String,
    calls: u64,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

fn remember<A>(work: impl FnOnce(&mut Memory) -> A) -> A {
    MEMORY.with_borrow_mut(work)
}

fn tour() -> Model {
    let about = json!({ "summary": "Says it again" });
    Model::new("tour")
        .field("name", Field::text().required())
        .field("price", Field::decimal())
        .on_load(|tour, _| {
            let mut data = tour.data;
            data["grade"] = if data["price"].as_f64() > Some(100.0) { "dear" } else { "fair" }.into();
            Ok(data)
        })
        .document_hooks(
            DocumentHooks::new().on_create(create).validate(validate).on_update(update).on_delete(remove),
        )
        .command(Command::about_one("pay", pay))
        .command(Command::about_one("ask", ask))
        .command(Command::about_one("split", split))
        .command(Command::about_one("facts", facts))
        .command(Command::about_one("count", count))
        .route(Route::get("/{id}/label", label))
        .route(Route::post("//tour/echo", echo).openapi(&about))
        .on_event("CREATETOUR", heard)
        .begin(|settings| greet(&settings))
        .reconfigure(|settings| {
            log::info("other settings", &[("greeting", &settings["greeting"])]);
            greet(&settings)
        })
        .drain(|| log::info("the tour ends", &[("calls", &remember(|memory| memory.calls))]))
        .health(|| match remember(|memory| memory.greeting == "ill") {
            true => Err(refuse(Code::Unavailable, "the guide is ill")),
            false => Ok(()),
        })
        .handover(
            || Ok(json!({ "calls": remember(|memory| memory.calls) })),
            |state: Value, from_version| {
                remember(|memory| memory.calls = state["calls"].as_u64().unwrap_or_default());
                log::info("taken over", &[("fromVersion", &from_version)]);
                Ok(())
            },
        )
}

fn greet(settings: &Value) -> Result<(), Refusal> {
    let greeting = settings["greeting"].as_str().unwrap_or_default();
    if greeting == "none" {
        return Err(refuse(Code::Unavailable, "there is no greeting").transient());
    }
    remember(|memory| greeting.clone_into(&mut memory.greeting));
    Ok(())
}

fn create(input: &HeldDocument<'_>, _: &Context) -> Result<(), Refusal> {
    let [name, price] = input.get_many(["/name", "/price"]);
    if let Some(Value::String(name)) = name {
        input.set("/name", name.trim())?;
    }
    if price.is_none() {
        input.set("/price", 1.5)?;
    }
    input.set("/stops", json!([{ "at": "start" }]))?;
    input.remove("/secret");
    let kind = input.get("/kind");
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or("walk");
    metrics::add("planned", 1.0, &[("kind", &kind)]);
    metrics::observe("price", input.get("/price").and_then(|price| price.as_f64()).unwrap_or_default(), &[]);
    Ok(())
}

fn stops(tour: &HeldDocument<'_>) -> usize {
    tour.get("/stops").and_then(|stops| Some(stops.as_array()?.len())).unwrap_or_default()
}

fn validate(after: &HeldDocument<'_>, before: Option<&HeldDocument<'_>>, _: &Context) -> Result<(), Refusal> {
    if after.get("/name") == Some("".into()) {
        return Err(refuse(Code::Invalid, "a tour has a name").detail("name", "is empty"));
    }
    match before {
        Some(before) if stops(after) < stops(before) => {
            Err(refuse(Code::Conflict, format!("it has {} properties", before.keys("").len())))
        }
        _ => Ok(()),
    }
}

fn update(current: &HeldDocument<'_>, changes: &HeldDocument<'_>, _: &Context) -> Result<(), Refusal> {
    for name in changes.keys("") {
        let place = format!("/{name}");
        match changes.get(&place) {
            None | Some(Value::Null) => _ = current.remove(&place),
            Some(value) => current.set(&place, value)?,
        }
    }
    current.set("/stops/-", json!({ "at": format!("revision {}", current.revision()) }))
}

fn remove(current: &HeldDocument<'_>, _: &Context) -> Result<(), Refusal> {
    match current.get("/price").and_then(|price| price.as_f64()) > Some(100.0) {
        true => {
            let id = current.id().unwrap_or_default();
            Err(refuse(Code::Conflict, format!("{id} is too dear to lose")))
        }
        false => Ok(()),
    }
}

fn api(path: &str) -> String {
    let api = setting("/api").unwrap_or_default();
    format!("{}{path}", api.as_str().unwrap_or_default())
}

fn pay(_: Value, tour: Entity, _: &Context) -> Result<Value, Refusal> {
    let body = json!({ "amount": tour.data["price"] });
    let request = Request::post(&api("/charge")).header("x-tour", &tour.id).json(&body);
    let response = http::send_authorized(&request, "Bearer", &secrets::open("guide")?)?;
    let answer: Value = response.json()?;
    Ok(json!({ "status": response.status, "type": response.headers.get("content-type"), "answer": answer }))
}

/// Name of the code of a refusal.
fn code_of<A>(asked: Result<A, Refusal>) -> Option<&'static str> {
    asked.err().map(|refusal| match refusal.code {
        Code::Denied => "denied",
        Code::NotFound => "not-found",
        Code::TooLarge => "too-large",
        _ => "other",
    })
}

fn ask(_: Value, _: Entity, _: &Context) -> Result<Value, Refusal> {
    let requests = [
        Request::get(&api("/a")).timeout_ms(5000),
        Request::get("http://127.0.0.1:1/"),
        Request::get(&api("/b")),
    ];
    let told = |one: Result<Response, Refusal>| match one {
        Ok(response) => response.text().map(str::to_owned),
        Err(refusal) => Ok(code_of::<()>(Err(refusal)).unwrap_or_default().to_owned()),
    };
    let told: Vec<String> = http::send_all(&requests).into_iter().map(told).collect::<Result<_, _>>()?;
    let large = Request::get(&api("/a")).response_bytes_max(1);
    let revealed = secrets::open("guide").and_then(|guide| guide.reveal());
    Ok(json!([told, code_of(http::send(&large)), code_of(revealed)]))
}

fn split(_: Value, tour: Entity, _: &Context) -> Result<Value, Refusal> {
    let [first, second] = [1, 2].map(|half| format!("{}{half}", tour.id));
    let written = documents::write_all(
        "tour",
        &[
            Write::Create(json!({ "id": first, "name": "first half", "price": 2 })),
            Write::Create(json!({ "id": second, "name": "second half", "price": 3 })),
            Write::Patch(tour.id.clone(), json!({ "split": true }), Some(tour.revision)),
        ],
    )?;
    let together = [Write::Create(json!({ "name": "x" })), Write::Remove("nothing".to_owned(), None)];
    let failed = code_of(documents::write_all("tour", &together));
    let found = documents::find_many("tour", &[&second, "nothing", &tour.id])?;
    let sum = json!([{ "$group": { "_id": null, "price": { "$sum": "$price" } } }]);
    let revisions: Vec<u64> = written.iter().map(|one| one.revision).collect();
    let names: Vec<_> = found.into_iter().map(|one| one.map(|one| one.data["name"].clone())).collect();
    let sum = documents::aggregate("tour", &sum)?;
    Ok(json!({ "revisions": revisions, "failed": failed, "found": names, "sum": sum }))
}

fn facts(_: Value, _: Entity, _: &Context) -> Result<Value, Refusal> {
    let before = monotonic_ns();
    let is_recent = now_ms() > 1_704_067_200_000;
    Ok(json!({
        "id": new_id().len(), "bytes": random_bytes(5).len(), "isRecent": is_recent, "grows": monotonic_ns() >= before,
        "hasTime": time_left_ms() > 0, "isCancelled": is_cancelled(), "generation": generation(),
        "errors": log::is_enabled(Level::Error),
    }))
}

fn count(_: Value, _: Entity, _: &Context) -> Result<Value, Refusal> {
    Ok(remember(|memory| {
        memory.calls += 1;
        json!({ "greeting": memory.greeting, "calls": memory.calls })
    }))
}

fn label(request: &RouteRequest, context: &Context) -> Result<Response, Refusal> {
    let id = request.param("id").unwrap_or_default();
    let tour = documents::find("tour", id)?;
    let tour = tour.ok_or_else(|| refuse(Code::NotFound, format!("there is no tour {id}")))?;
    let origin = if context.origin == Origin::Api { "api" } else { "elsewhere" };
    let text = format!("{} ({})", tour.data["name"].as_str().unwrap_or_default(), request.query);
    Ok(Response::new(200).header("x-origin", origin).with_text(&text))
}

fn echo(request: &RouteRequest, _: &Context) -> Result<Response, Refusal> {
    let said: Value = request.json()?;
    let answer = json!({ "said": said, "by": request.headers.get("constructor"), "at": request.path });
    Ok(Response::new(201).with_json(&answer))
}

fn heard(event: Event, _: &Context) -> Result<(), Refusal> {
    if event.data["model"]["listens"] == true {
        let changes: Document = json!({ "heard": event.name });
        documents::patch("tour", &event.key.unwrap_or_default(), &changes, None)?;
    }
    Ok(())
}
