"""Committed changes that a model hears of."""

from dataclasses import dataclass
from typing import Any, Optional

from .answering import answering, called, model
from .exact import read


@dataclass
class Event:
    """A change that is committed."""

    #: The same when it comes again.
    id: str
    #: Such as "CREATEORDER".
    name: str
    source: str
    time_ms: int
    #: Id of the document.
    key: Optional[str]
    data: Any


class EventHandlers:
    """What the component exports of this."""

    def on_event(self, context, event):
        with answering():
            handle = next(handle for pattern, handle in model().handlers.items() if _is_about(pattern, event.name))
            data = read(event.data)
            called(handle, Event(event.id, event.name, event.source, event.time, event.key, data), context)


def _is_about(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
