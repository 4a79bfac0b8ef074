"""Requests to other systems, as far as the operator grants them: whole, with an answer of any status. What the host
refuses is a `Refusal`."""

from dataclasses import dataclass, field
from typing import Optional, Union

from componentize_py_types import Ok
from wit_world.imports import http

from . import secrets
from .message import Body, Message, Value, from_headers, to_message
from .refusal import Refusal, asked, from_fault


@dataclass
class Request:
    """A request. A body that is no text and no bytes is sent as JSON; `content-type` follows from it unless the headers
    have one."""

    url: str
    method: str = "GET"
    headers: dict[str, Value] = field(default_factory=dict)
    body: Body = None
    #: Milliseconds that it may take; what is left of the call when there are none.
    timeout_ms: Optional[int] = None
    #: Most bytes of the answer's body; what may cross to a module when there are none.
    response_bytes_max: Optional[int] = None


@dataclass
class Response(Message):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def send(request: Request) -> Response:
    """Sends a request."""
    return _from_wit(asked(http.send, _to_wit(request)))


def send_authorized(request: Request, secret: str, scheme: str = "Bearer") -> Response:
    """Sends a request; the host puts the secret of this name behind the scheme into `Authorization`."""
    with secrets.opened(secret) as handle:
        return _from_wit(asked(http.send_authorized, _to_wit(request), scheme, handle))


def send_all(requests: list[Request]) -> list[Union[Response, Refusal]]:
    """Sends requests, at most 64, several at a time. The answers are in the order of the requests."""
    sent = http.send_all([_to_wit(request) for request in requests])
    return [_from_wit(one.value) if isinstance(one, Ok) else from_fault(one.value) for one in sent]


def _to_wit(request: Request) -> http.Request:
    headers, body = to_message(request.headers, request.body)
    return http.Request(
        request.method, request.url, headers, body, request.timeout_ms, request.response_bytes_max
    )


def _from_wit(response: http.Response) -> Response:
    return Response(response.status, from_headers(response.headers), response.body)
