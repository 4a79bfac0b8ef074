"""Code that promises instead of answering, in Python: nobody waits for it, so each is a defect and no yes."""

from aegis_module import Model, Refusal

vow = Model("vow")


@vow.on_create
async def create(input, context):
    return input


@vow.validate
async def validate(after, before, context):
    raise Refusal("invalid", "it is not valid")


@vow.on_update
async def update(current, changes, context):
    return {**current.data, **changes}


@vow.on_delete
async def remove(current, context):
    raise Refusal("conflict", "it is kept")


@vow.on_load
async def load(stored, context):
    return stored.data


@vow.command()
async def keep(arguments, current, context):
    return "kept"


@vow.on_event("CREATEVOW")
async def heard(event, context):
    raise Refusal("unavailable", "not now")


@vow.health
async def health():
    raise Refusal("unavailable", "it is not well")
