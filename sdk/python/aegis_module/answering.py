"""How code of a module is called: a `Refusal` is an answer, anything else that is raised is a defect."""

import traceback
from contextlib import contextmanager
from typing import Any, Callable

from componentize_py_types import Err
from wit_world.imports.types import Fault, FaultCode

from . import log
from .model import Model
from .refusal import Refusal, as_fault


def model() -> Model:
    """The model of this module."""
    if Model.defined is None:
        raise LookupError("found no Model in the module, expected one")
    return Model.defined


def called(part: Callable, *arguments) -> Any:
    """What a part of the module returns. Nobody would look at what becomes of a coroutine, so that a no in it would be a
    yes."""
    result = part(*arguments)
    if hasattr(result, "__await__") or hasattr(result, "__aiter__"):
        getattr(result, "close", lambda: None)()
        name, found = getattr(part, "__name__", "a function"), type(result).__name__
        raise TypeError(f"{name} returned a {found}, expected a result: functions of a module are synchronous")
    return result


@contextmanager
def answering():
    """A `Refusal` becomes an answer; anything else is a defect, and goes to the log."""
    try:
        yield
    except Refusal as refusal:
        raise as_fault(refusal) from None
    except Exception as error:
        stack = traceback.format_exc(limit=8)
        log.error(f"{type(error).__name__}: {error}", stack=stack)
        raise Err(Fault(FaultCode.INTERNAL, "the module has failed", None, False)) from None
