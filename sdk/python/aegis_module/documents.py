"""Documents of models: the module's own, and those that the operator grants. What the host refuses is a `Refusal`."""

from dataclasses import dataclass
from typing import Any, Optional, Union

from wit_world.imports import models

from .entity import Entity, entity
from .exact import read, written
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


def find_many(model: str, ids: list[str]) -> list[Optional[Entity]]:
    """Documents by id, at most 1000, in the order of the ids."""
    return [entity(found) for found in asked(models.find_many, model, ids)]


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
    query = models.Query(written(filter or {}), sort or [], limit, cursor, fields or [])
    page = asked(models.search, model, query)
    return Page([entity(item) for item in page.items], page.cursor)


def aggregate(model: str, pipeline: list) -> Any:
    """What a pipeline, as in `__aggregate`, makes of the documents."""
    return read(asked(models.aggregate, model, written(pipeline)))


@dataclass
class Create:
    """Makes a document, among other writes."""

    data: dict[str, Any]


@dataclass
class Patch:
    """Merges changes (RFC 7396) into a document, among other writes; with a revision, only if it still has that."""

    id: str
    changes: dict[str, Any]
    revision: Optional[int] = None


@dataclass
class Replace:
    """Replaces what is in a document, among other writes; with a revision, only if it still has that."""

    id: str
    data: dict[str, Any]
    revision: Optional[int] = None


@dataclass
class Remove:
    """Removes a document, among other writes; with a revision, only if it still has that."""

    id: str
    revision: Optional[int] = None


Write = Union[Create, Patch, Replace, Remove]


def write_all(model: str, writes: list[Write]) -> list[Entity]:
    """Writes documents, all of them or none; a refusal's message begins with the number of the write, from 0. What they
    are then, or were when they are removed."""
    written = asked(models.write_batch, model, [_operation(write) for write in writes])
    return [entity(one) for one in written]


def create(model: str, data: dict[str, Any]) -> Entity:
    """Makes a document."""
    return _write(model, Create(data))


def patch(model: str, id: str, changes: dict[str, Any], revision: Optional[int] = None) -> Entity:
    """Merges changes (RFC 7396) into a document; with a revision, only if it still has that."""
    return _write(model, Patch(id, changes, revision))


def replace(model: str, id: str, data: dict[str, Any], revision: Optional[int] = None) -> Entity:
    """Replaces what is in a document; with a revision, only if it still has that."""
    return _write(model, Replace(id, data, revision))


def remove(model: str, id: str, revision: Optional[int] = None) -> Entity:
    """Removes a document; with a revision, only if it still has that. What it was."""
    return _write(model, Remove(id, revision))


def _write(model: str, write: Write) -> Entity:
    return entity(asked(models.write, model, _operation(write)))


def _operation(write: Write) -> models.WriteOp:
    if isinstance(write, Create):
        return models.WriteOp_Create(written(write.data))
    if isinstance(write, Patch):
        return models.WriteOp_Patch((write.id, written(write.changes), write.revision))
    if isinstance(write, Replace):
        return models.WriteOp_Replace((write.id, written(write.data), write.revision))
    return models.WriteOp_Delete((write.id, write.revision))
