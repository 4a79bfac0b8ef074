"""Secrets of the host, as far as the operator grants them: `http.send_authorized` uses them without their text entering
the module."""

from wit_world.imports import secrets

from .refusal import asked


def opened(name: str) -> secrets.Secret:
    """A handle, to be used in a `with`: an instance has few of them, and a secret may be another next time."""
    return asked(secrets.open, name)


def reveal(name: str) -> str:
    """The text, which needs the grant `secrets.reveal`."""
    with opened(name) as handle:
        return asked(handle.reveal)
