"""One field of a model, and the rules that the host keeps about it."""

from __future__ import annotations

import json
from typing import Any, Optional

from wit_world.imports import spec


class Field:
    """A field. The host checks its rules before and after the hooks.

    The kind is "text", "integer", "decimal", "boolean", "timestamp", "object", "array", "bytes" or "any".
    """

    def __init__(
        self,
        kind: str = "any",
        *,
        required: bool = False,
        unique: bool = False,
        immutable: bool = False,
        indexed: bool = False,
        default: Any = None,
        min: Optional[float] = None,
        max: Optional[float] = None,
        longest: Optional[int] = None,
        values: Optional[list] = None,
        pattern: Optional[str] = None,
        schema: Optional[dict[str, Any]] = None,
    ):
        """`longest` is in characters, `pattern` a regular expression, `schema` a JSON Schema about the value."""
        self.kind = spec.FieldKind[kind.upper()]
        self.rules = spec.FieldRules(0)
        rules = {"REQUIRED": required, "UNIQUE": unique, "IMMUTABLE": immutable, "INDEXED": indexed}
        for name, wanted in rules.items():
            if wanted:
                self.rules |= spec.FieldRules[name]
        self.default = default
        self.range = {name: bound for name, bound in (("min", min), ("max", max)) if bound is not None}
        self.pattern = pattern
        self.schema = dict(schema or {})
        if longest is not None:
            self.schema["maxLength"] = longest
        if values is not None:
            self.schema["enum"] = list(values)

    def spec(self, name: str) -> spec.FieldSpec:
        """The field as the contract says it."""
        default = None if self.default is None else json.dumps(self.default)
        schema = json.dumps(self.schema) if self.schema else None
        return spec.FieldSpec(name, self.kind, self.rules, default, schema)

    def mixins(self, name: str) -> list[spec.MixinSpec]:
        """Its rules that the contract says as mixins."""
        pattern = {} if self.pattern is None else {"pattern": self.pattern}
        return [
            spec.MixinSpec(kind, spec.HookSet(0), json.dumps({"fields": [name], **options}))
            for kind, options in (("range", self.range), ("pattern", pattern))
            if options
        ]
