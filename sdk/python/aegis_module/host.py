"""What the host tells a module."""

from typing import Any

from wit_world.imports import clock, config, random

from .exact import read


def setting(pointer: str) -> Any:
    """A setting of this module by JSON Pointer (RFC 6901), such as "/greeting"; None when it is not set."""
    found = config.get_json(pointer)
    return None if found is None else read(found)


def now_ms() -> int:
    """The time, milliseconds since 1970."""
    return clock.now()


def generation() -> int:
    """Number of the generation that this module is part of."""
    return config.generation()


def monotonic_ns() -> int:
    """A clock that only grows, nanoseconds: for measuring how long something takes."""
    return clock.monotonic_ns()


def time_left_ms() -> int:
    """Milliseconds that this call may still take."""
    return clock.remaining_ms()


def is_cancelled() -> bool:
    """Whether the caller went away, so that the answer is not wanted any more."""
    return clock.cancelled()


def new_id() -> str:
    """A new UUID. (Python's own `random` begins anew in every instance as it was when the component was built.)"""
    return random.uuid()


def random_bytes(count: int) -> bytes:
    """Bytes that nobody can guess."""
    return bytes(random.bytes(count))
