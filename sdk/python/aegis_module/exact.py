"""JSON whose numbers are written back as they were read, where nobody has changed them."""

import json
from decimal import Decimal
from typing import Any, Union

#: Characters of a number without an exponent that a float keeps, whatever they are.
FLOAT_CHARACTERS = 16


class Exact(float):
    """A number of more digits than a float keeps. Whoever counts with it counts with the nearest float; whoever passes it on
    passes on what was read."""

    __slots__ = ("text",)
    #: Whether there have been any: JSON without them is written by the interpreter, which knows floats alone.
    are_there = False


def _number(text: str) -> float:
    nearest = float(text)
    if len(text) <= FLOAT_CHARACTERS and "e" not in text and "E" not in text:
        return nearest
    if Decimal(repr(nearest)) == Decimal(text):
        return nearest
    exact = Exact(nearest)
    exact.text = text
    Exact.are_there = True
    return exact


def read(text: Union[str, bytes]) -> Any:
    """The value of a JSON text."""
    return json.loads(text, parse_float=_number)


def written(value: Any, **options: Any) -> str:
    """A value as JSON; options are those of `json.dumps`."""
    return _written(value, options) if Exact.are_there else json.dumps(value, **options)


def _written(value: Any, options: dict[str, Any]) -> str:
    if isinstance(value, Exact):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{_key(key, options)}:{_written(part, options)}" for key, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_written(part, options) for part in value) + "]"
    return json.dumps(value, **options)


def _key(key: Any, options: dict[str, Any]) -> str:
    """A key, which becomes a text if it is none."""
    name = json.dumps({key: 0}, **options)
    return name[1 : name.rindex(":")]
