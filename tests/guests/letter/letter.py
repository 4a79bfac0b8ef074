"""Letters that some may read and others may open, in Python: the same contract as in the other languages of this folder."""

import json

from aegis_module import Field, Model, Response, Rule

letter = Model(
    "letter",
    fields={"text": Field("text")},
    acl=[
        Rule.role("reader", allow=["read", "list-all"]),
        Rule.role("editor", allow=["create", "read", "list-all", "update"]),
        Rule.claim("team", "post", allow=["delete"]),
        Rule.anyone(allow=["read"]),
        Rule.role("former", deny=["read", "list-all", "update", "delete", "command"]),
    ],
)


@letter.command(allow=["decrypt", "auditor"])
def decrypt(arguments, current, context):
    return {"clear": current.data["text"]}


@letter.command()
def who(arguments, current, context):
    principal = context.principal
    team = json.loads(principal.claims).get("team")
    return {"subject": principal.subject, "roles": principal.roles, "team": team}


@letter.route("GET", "/{id}/seal", allow=["auditor"])
def seal(request, context):
    return Response(f"sealed {request.params['id']}")


@letter.route("GET", "//post/hours", public=True)
def hours(request, context):
    return Response("nine to five")


@letter.route("GET", "//post/desk")
def desk(request, context):
    return Response("a desk")
