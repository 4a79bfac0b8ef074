"""A model: what its documents are, and which code has a say in their lives."""

from dataclasses import dataclass
from typing import Any, Callable, Optional

from .field import Field


@dataclass
class Command:
    """A command of a model."""

    run: Callable
    description: Optional[str]
    arguments: Optional[dict[str, Any]]
    saves: bool
    cpu_bound: bool
    about_one: bool


class Model:
    """The model of this module, with its code. There is one in a component.

    Its endpoint is its name with an "s" unless it says otherwise, and it is kept where the host keeps documents unless
    `datasource` is "memory" or "file". `schema` is a JSON Schema of the whole document; with `strict`, properties that
    are not declared are refused. `module` and `module_version` are for modules that are not called like their model.
    """

    #: The one that was made.
    defined: Optional["Model"] = None

    def __init__(
        self,
        name: str,
        *,
        endpoint: Optional[str] = None,
        version: str = "1.0.0",
        domain: Optional[str] = None,
        description: Optional[str] = None,
        id_field: Optional[str] = None,
        fields: Optional[dict[str, Field]] = None,
        schema: Optional[dict[str, Any]] = None,
        strict: bool = False,
        datasource: Optional[str] = None,
        module: Optional[str] = None,
        module_version: Optional[str] = None,
    ):
        if Model.defined is not None:
            raise ValueError(f"found a second model {name!r}, expected {Model.defined.name!r} alone")
        Model.defined = self
        self.name = name
        self.endpoint = endpoint or f"{name}s"
        self.version = version
        self.domain = domain
        self.description = description
        self.id_field = id_field
        self.fields = fields or {}
        self.schema = schema
        self.strict = strict
        self.datasource = datasource
        self.module = module or name
        self.module_version = module_version or version
        #: The code by hook.
        self.hooks: dict[str, Callable] = {}
        self.commands: dict[str, Command] = {}
        self.started: Optional[Callable] = None

    def on_create(self, hook: Callable) -> Callable:
        """`hook(input, context)` makes the document from what the client sent."""
        return self._hooked("ON_CREATE", hook)

    def validate(self, hook: Callable) -> Callable:
        """`hook(after, before, context)` has the last word on a new or changed document; `before` is None when it
        is new."""
        return self._hooked("VALIDATE", hook)

    def on_update(self, hook: Callable) -> Callable:
        """`hook(current, changes, context)` merges changes (None removes) into the document and returns all of it."""
        return self._hooked("ON_UPDATE", hook)

    def on_delete(self, hook: Callable) -> Callable:
        """`hook(current, context)` may forbid a removal."""
        return self._hooked("ON_DELETE", hook)

    def begin(self, begin: Callable) -> Callable:
        """`begin(settings)` is called when an instance begins."""
        self.started = begin
        return begin

    def command(
        self,
        *,
        name: Optional[str] = None,
        description: Optional[str] = None,
        arguments: Optional[dict[str, Any]] = None,
        saves: bool = False,
        cpu_bound: bool = False,
        about_one: bool = True,
    ) -> Callable:
        """`run(arguments, current, context)` is a command, called like the function unless it has another name.

        `arguments` is a JSON Schema, which the host checks. With `saves`, the result replaces the document instead of
        only being answered. A command that is `cpu_bound` runs on threads of its own and has more time. One that is not
        `about_one` document gets None instead when it is called for none.
        """

        def decorate(run: Callable) -> Callable:
            command = Command(run, description, arguments, saves, cpu_bound, about_one)
            self.commands[name or run.__name__] = command
            return run

        return decorate

    def _hooked(self, name: str, hook: Callable) -> Callable:
        self.hooks[name] = hook
        return hook
