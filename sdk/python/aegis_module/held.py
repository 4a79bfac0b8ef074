"""Documents that the host holds: a hook asks for the parts that it wants, and the rest is neither copied nor read."""

from typing import Any, Optional

from wit_world.imports import documents

from .answering import answering, called, model
from .exact import Exact, read, written
from .refusal import asked

#: Whole numbers that the contract says as such.
INTEGERS = range(-(2**63), 2**63)


class HeldDocument:
    """A document while a hook looks at it. Places in it are JSON Pointers (RFC 6901)."""

    def __init__(self, handle: documents.Document):
        self._handle = handle

    @property
    def id(self) -> Optional[str]:
        """Its id; None when it has none yet."""
        return self._handle.id()

    @property
    def revision(self) -> int:
        """Its revision; 0 when it has none yet."""
        return self._handle.revision()

    def get(self, pointer: str) -> Any:
        """The value at a place; None when there is none, or null."""
        return self._value(pointer, self._handle.get(pointer))

    def get_many(self, *pointers: str) -> list[Any]:
        """The values at some places, asked for at once."""
        found = self._handle.get_many(list(pointers))
        return [self._value(pointer, scalar) for pointer, scalar in zip(pointers, found)]

    def has(self, pointer: str) -> bool:
        """Whether there is a value at a place, be it null."""
        return self._handle.get(pointer) is not None

    def keys(self, pointer: str = "") -> list[str]:
        """The names in the object at a place; of the document unless it says otherwise."""
        return self._handle.keys(pointer)

    def set(self, pointer: str, value: Any) -> None:
        """Puts a value at a place: instead of what is there, as a property, or with `-` at the end of an array. Raises
        a `Refusal` where it cannot be."""
        scalar = _scalar(value)
        if scalar is None:
            asked(self._handle.set_json, pointer, written(value, ensure_ascii=False, allow_nan=False))
        else:
            asked(self._handle.set, pointer, scalar)

    def remove(self, pointer: str) -> bool:
        """Takes away what is at a place. Whether there was something."""
        return self._handle.remove(pointer)

    def _value(self, pointer: str, scalar: Optional[documents.Scalar]) -> Any:
        if scalar is None or isinstance(scalar, documents.Scalar_Null):
            return None
        if isinstance(scalar, (documents.Scalar_Object, documents.Scalar_Array)):
            return read(self._handle.to_json(pointer))
        return scalar.value


def _scalar(value: Any) -> Optional[documents.Scalar]:
    """A value as the contract says it when it has no parts; None when it has some."""
    if value is None:
        return documents.Scalar_Null()
    if isinstance(value, bool):
        return documents.Scalar_Boolean(value)
    if isinstance(value, str):
        return documents.Scalar_Text(value)
    if isinstance(value, int) and value in INTEGERS:
        return documents.Scalar_Integer(value)
    if isinstance(value, float) and not isinstance(value, Exact):
        return documents.Scalar_Number(value)
    return None


class DocumentHooks:
    """What the component exports of this: a module's code, called with handles."""

    def on_create(self, context, input):
        with answering():
            called(model().document_hooks.hooks["ON_CREATE"], HeldDocument(input), context)

    def validate(self, context, before, after):
        with answering():
            before = None if before is None else HeldDocument(before)
            called(model().document_hooks.hooks["VALIDATE"], HeldDocument(after), before, context)

    def on_update(self, context, current, changes):
        with answering():
            called(model().document_hooks.hooks["ON_UPDATE"], HeldDocument(current), HeldDocument(changes), context)

    def on_delete(self, context, current):
        with answering():
            called(model().document_hooks.hooks["ON_DELETE"], HeldDocument(current), context)
