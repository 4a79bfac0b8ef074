"""Messages of HTTP, in both directions: header fields and bodies."""

from typing import Any, Union

from wit_world.imports.types import Header

from .exact import read, written
from .refusal import Refusal

#: A value of a header field; several of one name as a list.
Value = Union[str, list[str]]
#: What is sent: a text, bytes, nothing, or anything else as JSON.
Body = Union[bytes, str, None, dict, list, int, float, bool]


class Message:
    """What came: header fields by lower-case name, several of one name with commas in between, and a body."""

    headers: dict[str, str]
    body: bytes

    def text(self) -> str:
        """The body as text; raises a `Refusal` when it is no UTF-8."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise Refusal("invalid", f"found a body that is no text: {error}") from None

    def json(self) -> Any:
        """The body as JSON; raises a `Refusal` when it is none."""
        try:
            return read(self.text())
        except ValueError as error:
            raise Refusal("invalid", f"found a body that is no JSON: {error}") from None


def to_message(headers: dict[str, Value], body: Body) -> tuple[list[Header], bytes]:
    """Header fields and body as the contract says them; the type follows from the body unless the fields say it."""
    content, content_type = _content(body)
    if content_type is not None and "content-type" not in (name.lower() for name in headers):
        headers = {**headers, "content-type": content_type}
    pairs = [
        (name, value)
        for name, values in headers.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return [Header(name, str(value).encode()) for name, value in pairs], content


def _content(body: Body) -> tuple[bytes, Union[str, None]]:
    if body is None:
        return b"", None
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    text = written(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(), "application/json"


def from_headers(headers: list[Header]) -> dict[str, str]:
    """Header fields that came."""
    fields: dict[str, str] = {}
    for header in headers:
        name, value = header.name.lower(), header.value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields
