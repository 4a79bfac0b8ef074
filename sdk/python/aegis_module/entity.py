"""Documents as modules see them."""

from dataclasses import dataclass
from typing import Any, Optional

from wit_world.imports import types

from .exact import read


@dataclass
class Entity:
    """A stored document."""

    id: str
    #: Name of its model, upper case.
    model: str
    #: Grows with every change, from 1.
    revision: int
    #: When it was made, milliseconds since 1970.
    created_ms: int
    #: When it was changed last, milliseconds since 1970.
    updated_ms: int
    #: What is in it.
    data: dict[str, Any]


def entity(found: Optional[types.Entity]) -> Optional[Entity]:
    """The document that the host hands over, if it does."""
    if found is None:
        return None
    data = read(found.data)
    return Entity(found.id, found.model, found.revision, found.created, found.updated, data)
