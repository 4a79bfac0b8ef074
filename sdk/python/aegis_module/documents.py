"""Documents of models: the module's own, and those that the operator grants. What the host refuses is a `Refusal`."""

import json
from dataclasses import dataclass
from typing import Any, Optional

from wit_world.imports import models

from .entity import Entity, entity
from .refusal import asked


@dataclass
class Page:
    """Some documents."""

    items: list[Entity]
    #: Where the next page begins; None when there is none.
    cursor: Optional[str]


def find(model: str, id: str) -> Optional[Entity]:
    """One document."""
    return entity(asked(models.find, model, id))


def search(
    model: str,
    filter: Optional[dict[str, Any]] = None,
    *,
    sort: Optional[list[str]] = None,
    limit: int = 100,
    cursor: Optional[str] = None,
    fields: Optional[list[str]] = None,
) -> Page:
    """One page of documents. The filter is in the REST query language, such as `{"total": {"gt": 100}}`; a leading "-"
    of a field to sort by turns the order round."""
    query = models.Query(json.dumps(filter or {}), sort or [], limit, cursor, fields or [])
    page = asked(models.search, model, query)
    return Page([entity(item) for item in page.items], page.cursor)


def create(model: str, data: dict[str, Any]) -> Entity:
    """Makes a document."""
    return _write(model, models.WriteOp_Create(json.dumps(data)))


def patch(model: str, id: str, changes: dict[str, Any], revision: Optional[int] = None) -> Entity:
    """Merges changes (RFC 7396) into a document; with a revision, only if it still has that."""
    return _write(model, models.WriteOp_Patch((id, json.dumps(changes), revision)))


def replace(model: str, id: str, data: dict[str, Any], revision: Optional[int] = None) -> Entity:
    """Replaces what is in a document; with a revision, only if it still has that."""
    return _write(model, models.WriteOp_Replace((id, json.dumps(data), revision)))


def remove(model: str, id: str, revision: Optional[int] = None) -> Entity:
    """Removes a document; with a revision, only if it still has that. What it was."""
    return _write(model, models.WriteOp_Delete((id, revision)))


def _write(model: str, operation: models.WriteOp) -> Entity:
    return entity(asked(models.write, model, operation))
