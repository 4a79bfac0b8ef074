"""Things to do, in Python: the same contract as in the other languages of this folder."""

from aegis_module import Field, Model, Refusal, documents, setting

todo = Model(
    "todo",
    endpoint="todo",
    description="Something to do",
    fields={
        "text": Field("text", required=True, longest=20),
        "isComplete": Field("boolean", default=False),
        "priority": Field("integer", indexed=True, min=1, max=5),
    },
)


def counted(data):
    """What follows from the text."""
    text = data.get("text")
    return {**data, "words": len(text.split()) if isinstance(text, str) else 0}


@todo.on_create
def create(input, context):
    if isinstance(input.get("text"), str):
        input["text"] = input["text"].strip()
    return counted(input)


@todo.validate
def validate(after, before, context):
    if after["text"] == "":
        raise Refusal("invalid", "there is nothing to do", {"text": "is empty"})
    if before and before.get("isComplete") and after["text"] != before["text"]:
        raise Refusal("conflict", "it is done already")


@todo.on_update
def update(current, changes, context):
    merged = {**current.data, **changes}
    return counted({name: value for name, value in merged.items() if value is not None})


@todo.on_delete
def delete(current, context):
    if not current.data.get("isComplete"):
        raise Refusal("conflict", "it is to be done yet", {"isComplete": "must be true"})


@todo.command(description="It is done.", saves=True)
def complete(arguments, current, context):
    if current.data.get("isComplete"):
        raise Refusal("conflict", "it is done already")
    return {**current.data, "isComplete": True}


@todo.command(arguments={"type": "object", "properties": {"mark": {"type": "string", "maxLength": 3}}})
def shout(arguments, current, context):
    return current.data["text"].upper() + arguments.get("mark", setting("/mark") or ".")


@todo.command()
def alike(arguments, current, context):
    page = documents.search("todo", {"priority": current.data["priority"]}, sort=["text"], fields=["text"])
    return [other.data["text"] for other in page.items if other.id != current.id and other.revision > 0]


@todo.command()
def stranger(arguments, current, context):
    return documents.find("customer", "c1")
