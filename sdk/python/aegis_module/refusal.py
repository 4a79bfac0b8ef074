"""A no: the answer of a module that is well."""

import json
from typing import Any, Optional

from componentize_py_types import Err
from wit_world.imports.types import Fault, FaultCode


class Refusal(Exception):
    """Why not. The host passes code, message and details on to the client.

    The code is one of "invalid", "not-found", "conflict", "denied", "timeout", "unavailable", "circuit-open",
    "too-large", "cancelled", "unsupported" and "internal"; it decides the status. Details are reasons by field.
    """

    def __init__(self, code: str, message: str, details: Optional[dict[str, Any]] = None, transient: bool = False):
        super().__init__(message)
        if code not in CODES:
            raise ValueError(f"found the code {code!r}, expected one of {', '.join(CODES)}")
        self.code = code
        self.message = message
        self.details = details
        self.transient = transient


CODES = {code.name.lower().replace("_", "-"): code for code in FaultCode}
NAMES = {code: name for name, code in CODES.items()}


def as_fault(refusal: Refusal) -> Err:
    """What the contract calls it."""
    details = None if refusal.details is None else json.dumps(refusal.details, ensure_ascii=False)
    return Err(Fault(CODES[refusal.code], refusal.message, details, refusal.transient))


def asked(ask, *arguments):
    """Calls the host; its no becomes a `Refusal`, which the module may catch."""
    try:
        return ask(*arguments)
    except Err as error:
        raise from_fault(error.value) from None


def from_fault(fault: Fault) -> Refusal:
    """What the host refused."""
    details = None if fault.details is None else json.loads(fault.details)
    return Refusal(NAMES[fault.code], fault.message, details, fault.transient)
