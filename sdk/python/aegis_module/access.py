"""Who may do what with the documents of a model, on hosts that ask who calls (`[auth]`); others refuse the module."""

from __future__ import annotations

from typing import Sequence

from wit_world.imports import spec

#: What can be done with documents.
RIGHTS = ("create", "read", "list-all", "update", "delete", "command")


def names(found: Sequence[str], place: str) -> list[str]:
    """A list of texts. One text would be a list of letters, and a name that nobody has."""
    if isinstance(found, str) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"found {found!r} for {place}, expected a list of texts")
    return list(found)


class Rule:
    """A rule about callers: `Rule.role("editor", allow=["read", "update"])`.

    What a rule denies is refused, whatever others allow. The rights are "create", "read", "list-all", "update", "delete"
    and "command".
    """

    def __init__(self, subject: str, name: str, allow: Sequence[str], deny: Sequence[str]):
        self.subject = spec.AclSubject[subject.upper()]
        self.name = name
        self.allow = _rights(allow)
        self.deny = _rights(deny)

    @classmethod
    def role(cls, name: str, *, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> Rule:
        """About callers with this role."""
        return cls("role", name, allow, deny)

    @classmethod
    def claim(cls, name: str, value: str, *, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> Rule:
        """About callers whose token has a claim of this name with this value, or with it in a list."""
        return cls("claim", f"{name}={value}", allow, deny)

    @classmethod
    def anyone(cls, *, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> Rule:
        """About whoever has a token."""
        return cls("anyone", "", allow, deny)

    def spec(self) -> spec.AclRule:
        """The rule as the contract says it."""
        return spec.AclRule(self.subject, self.name, self.allow, self.deny, [])


def _rights(found: Sequence[str]) -> spec.AclActions:
    rights = spec.AclActions(0)
    for name in names(found, "the rights of a rule"):
        if name not in RIGHTS:
            raise ValueError(f"found the right {name!r}, expected one of {', '.join(RIGHTS)}")
        rights |= spec.AclActions[name.upper().replace("-", "_")]
    return rights
