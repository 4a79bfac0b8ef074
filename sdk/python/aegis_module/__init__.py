"""Modules for Ægis in Python: a `Model` with its fields, hooks and commands becomes a component.

    from aegis_module import Field, Model, Refusal

    note = Model("note", fields={
        "text": Field("text", required=True, longest=200),
        "closed": Field("boolean", default=False),
    })

    @note.on_delete
    def remove(current, context):
        if not current.data.get("closed"):
            raise Refusal("conflict", "close it first")

    @note.command(saves=True)
    def close(arguments, current, context):
        return {**current.data, "closed": True}

A `Refusal` that is raised is the answer of a module that is well, and clients see it. Any other exception is a defect:
it goes to the log with its traceback, and the client gets 500. How to build and to run a module is in docs/modules.md.

`documents`, `http`, `metrics` and `secrets` are modules of this package. What of them a module imports is what its
component imports from the host.
"""

from . import log
from .access import Rule
from .entity import Entity
from .field import Field
from .host import generation, is_cancelled, monotonic_ns, new_id, now_ms, random_bytes, setting, time_left_ms
from .model import Model, Response
from .refusal import Refusal

__all__ = [
    "Entity",
    "Field",
    "Model",
    "Refusal",
    "Response",
    "Rule",
    "generation",
    "is_cancelled",
    "log",
    "monotonic_ns",
    "new_id",
    "now_ms",
    "random_bytes",
    "setting",
    "time_left_ms",
]
