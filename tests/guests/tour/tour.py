"""A tour of the contract, in Python: the same as in the other languages of this folder."""

from aegis_module import (
    Field,
    Model,
    Refusal,
    Response,
    documents,
    generation,
    http,
    is_cancelled,
    log,
    metrics,
    monotonic_ns,
    new_id,
    now_ms,
    random_bytes,
    secrets,
    setting,
    time_left_ms,
)

tour = Model("tour", fields={"name": Field("text", required=True), "price": Field("decimal")})

#: What an instance remembers.
memory = {"greeting": "", "calls": 0}


@tour.begin
def greet(settings):
    if settings["greeting"] == "none":
        raise Refusal("unavailable", "there is no greeting", transient=True)
    memory["greeting"] = settings["greeting"]


@tour.reconfigure
def greet_anew(settings):
    log.info("other settings", greeting=settings["greeting"])
    greet(settings)


@tour.drain
def end():
    log.info("the tour ends", calls=memory["calls"])


@tour.health
def is_well():
    if memory["greeting"] == "ill":
        raise Refusal("unavailable", "the guide is ill")


@tour.save
def save():
    return {"calls": memory["calls"]}


@tour.restore
def restore(state, from_version):
    memory["calls"] = state["calls"]
    log.info("taken over", fromVersion=from_version)


@tour.on_load
def load(stored, context):
    return {**stored.data, "grade": "dear" if stored.data["price"] > 100 else "fair"}


@tour.document_hooks.on_create
def create(input, context):
    name, price = input.get_many("/name", "/price")
    if isinstance(name, str):
        input.set("/name", name.strip())
    if price is None:
        input.set("/price", 1.5)
    input.set("/stops", [{"at": "start"}])
    input.remove("/secret")
    metrics.add("planned", 1, kind=input.get("/kind") or "walk")
    metrics.observe("price", input.get("/price"))


@tour.document_hooks.validate
def validate(after, before, context):
    if after.get("/name") == "":
        raise Refusal("invalid", "a tour has a name", {"name": "is empty"})
    if before and len(after.get("/stops") or []) < len(before.get("/stops") or []):
        raise Refusal("conflict", f"it has {len(before.keys())} properties")


@tour.document_hooks.on_update
def update(current, changes, context):
    for name in changes.keys():
        value = changes.get(f"/{name}")
        if value is None:
            current.remove(f"/{name}")
        else:
            current.set(f"/{name}", value)
    current.set("/stops/-", {"at": f"revision {current.revision}"})


@tour.document_hooks.on_delete
def remove(current, context):
    if current.get("/price") > 100:
        raise Refusal("conflict", f"{current.id} is too dear to lose")


def api(path):
    return setting("/api") + path


@tour.command()
def pay(arguments, current, context):
    request = http.Request(
        api("/charge"), "POST", headers={"x-tour": current.id}, body={"amount": current.data["price"]}
    )
    response = http.send_authorized(request, "guide")
    return {"status": response.status, "type": response.headers["content-type"], "answer": response.json()}


def code_of(ask):
    """The code of a refusal, or what is answered."""
    try:
        return ask()
    except Refusal as refusal:
        return refusal.code


@tour.command()
def ask(arguments, current, context):
    urls = [api("/a"), "http://127.0.0.1:1/", api("/b")]
    sent = http.send_all([http.Request(url, timeout_ms=5000) for url in urls])
    told = [one.code if isinstance(one, Refusal) else one.text() for one in sent]
    large = http.Request(api("/a"), response_bytes_max=1)
    return [told, code_of(lambda: http.send(large)), code_of(lambda: secrets.reveal("guide"))]


@tour.command()
def split(arguments, current, context):
    first, second = (f"{current.id}{half}" for half in (1, 2))
    written = documents.write_all(
        "tour",
        [
            documents.Create({"id": first, "name": "first half", "price": 2}),
            documents.Create({"id": second, "name": "second half", "price": 3}),
            documents.Patch(current.id, {"split": True}, current.revision),
        ],
    )
    together = [documents.Create({"name": "x"}), documents.Remove("nothing")]
    failed = code_of(lambda: documents.write_all("tour", together))
    found = documents.find_many("tour", [second, "nothing", current.id])
    total = documents.aggregate("tour", [{"$group": {"_id": None, "price": {"$sum": "$price"}}}])
    return {
        "revisions": [one.revision for one in written],
        "failed": failed,
        "found": [one and one.data["name"] for one in found],
        "sum": total,
    }


@tour.command()
def facts(arguments, current, context):
    before = monotonic_ns()
    return {
        "id": len(new_id()),
        "bytes": len(random_bytes(5)),
        "isRecent": now_ms() > 1_704_067_200_000,
        "grows": monotonic_ns() >= before,
        "hasTime": time_left_ms() > 0,
        "isCancelled": is_cancelled(),
        "generation": generation(),
        "errors": log.is_enabled("error"),
    }


@tour.command()
def count(arguments, current, context):
    memory["calls"] += 1
    return memory


@tour.route("GET", "/{id}/label")
def label(request, context):
    found = documents.find("tour", request.params["id"])
    if found is None:
        raise Refusal("not-found", f"there is no tour {request.params['id']}")
    return Response(f"{found.data['name']} ({request.query})", headers={"x-origin": context.origin.name.lower()})


@tour.route("POST", "//tour/echo", openapi={"summary": "Says it again"})
def echo(request, context):
    answer = {"said": request.json(), "by": request.headers.get("constructor"), "at": request.path}
    return Response(answer, status=201)


@tour.on_event("CREATETOUR")
def heard(event, context):
    if event.data["model"].get("listens"):
        documents.patch("tour", event.key, {"heard": event.name})
