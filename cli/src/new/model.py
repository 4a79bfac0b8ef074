"""What a document of the model `@NAME@` is, and what may become of it."""

from aegis_module import Field, Model, Refusal

model = Model(
    "@NAME@",
    endpoint="@ENDPOINT@",
    version="1.0.0",
    fields={
        # A document without it is refused.
        "title": Field("text", required=True, longest=200),
        # New documents are open unless they say so.
        "closed": Field("boolean", default=False),
    },
)


@model.validate
def validate(after, before, context):
    """Has the last word before a document is stored; `before` is None when it is new."""
    if before and before.get("closed") and after["title"] != before["title"]:
        raise Refusal("conflict", "it is closed", {"title": "cannot change any more"})


@model.command(description="Closes it.", saves=True)
def close(arguments, current, context):
    """POST /aegis/api/models/@ENDPOINT@/ID/close; what it returns is stored, because it `saves`."""
    return {**current.data, "closed": True}
