"""A model: what its documents are, and which code has a say in their lives."""

from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Sequence

from .access import Rule, names
from .field import Field
from .message import Body, Value


#: Methods that a route may have.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass
class Command:
    """A command of a model."""

    run: Callable
    description: Optional[str]
    arguments: Optional[dict[str, Any]]
    saves: bool
    cpu_bound: bool
    about_one: bool
    allow: list[str]


@dataclass
class Route:
    """A path that the code answers itself."""

    run: Callable
    cpu_bound: bool
    openapi: Optional[dict[str, Any]]
    public: bool
    allow: list[str]


@dataclass
class Response:
    """What a custom route answers. A body that is no text and no bytes is sent as JSON; `content-type` follows from it
    unless the headers have one."""

    body: Body = None
    status: int = 200
    headers: dict[str, Value] = field(default_factory=dict)


class DocumentHooks:
    """Hooks over documents that the host holds, instead of those over copies; only `on_load` has copies alone."""

    def __init__(self):
        #: The code by hook.
        self.hooks: dict[str, Callable] = {}

    def on_create(self, hook: Callable) -> Callable:
        """`hook(input, context)` makes the document out of what the client sent, in place."""
        return self._hooked("ON_CREATE", hook)

    def validate(self, hook: Callable) -> Callable:
        """`hook(after, before, context)` has the last word; `before` is None when the document is new."""
        return self._hooked("VALIDATE", hook)

    def on_update(self, hook: Callable) -> Callable:
        """`hook(current, changes, context)` merges changes (None removes) into the document, in place."""
        return self._hooked("ON_UPDATE", hook)

    def on_delete(self, hook: Callable) -> Callable:
        """`hook(current, context)` may forbid a removal."""
        return self._hooked("ON_DELETE", hook)

    def _hooked(self, name: str, hook: Callable) -> Callable:
        self.hooks[name] = hook
        return hook


class Model:
    """The model of this module, with its code. There is one in a component.

    Its endpoint is its name with an "s" unless it says otherwise, and it is kept where the host keeps documents unless
    `datasource` is "memory" or "file". `schema` is a JSON Schema of the whole document; with `strict`, properties that
    are not declared are refused. `acl` says who may do what: as soon as there is a rule, what none allows is refused, and
    the host needs `[auth]`. `module` and `module_version` are for modules that are not called like their model.
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
        acl: Sequence[Rule] = (),
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
        self.acl = list(acl)
        self.datasource = datasource
        self.module = module or name
        self.module_version = module_version or version
        #: The code by hook.
        self.hooks: dict[str, Callable] = {}
        self.commands: dict[str, Command] = {}
        #: Hooks over documents that the host holds: `@note.document_hooks.on_create`.
        self.document_hooks = DocumentHooks()
        #: Routes by method and pattern.
        self.routes: dict[tuple[str, str], Route] = {}
        #: Handlers by what they subscribe to.
        self.handlers: dict[str, Callable] = {}
        #: The code by its part in the life of an instance.
        self.life: dict[str, Callable] = {}

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

    def on_load(self, hook: Callable) -> Callable:
        """`hook(stored, context)` brings a stored document into the shape that this code knows, whenever it is read."""
        return self._hooked("ON_LOAD", hook)

    def begin(self, begin: Callable) -> Callable:
        """`begin(settings)` is called when an instance begins."""
        return self._lives("begin", begin)

    def reconfigure(self, reconfigure: Callable) -> Callable:
        """`reconfigure(settings)` is called with other settings while an instance goes on; `begin` is, unless this is
        there. A `Refusal` has the instance replaced."""
        return self._lives("reconfigure", reconfigure)

    def drain(self, drain: Callable) -> Callable:
        """`drain()` is called when an instance ends, unless it failed or another one wants its room at once."""
        return self._lives("drain", drain)

    def health(self, health: Callable) -> Callable:
        """`health()` raises a `Refusal` when the module is not well."""
        return self._lives("health", health)

    def save(self, save: Callable) -> Callable:
        """`save()` returns what the next version gets to know, anything that JSON can say."""
        return self._lives("save", save)

    def restore(self, restore: Callable) -> Callable:
        """`restore(state, from_version)` gets to know what the version before has saved."""
        return self._lives("restore", restore)

    def on_event(self, *patterns: str) -> Callable:
        """`handle(event, context)` is told of events by name, or with "*" at the end of how their names begin; the first
        handler that fits is called."""

        def decorate(handle: Callable) -> Callable:
            self.handlers.update({pattern.upper(): handle for pattern in patterns})
            return handle

        return decorate

    def route(
        self,
        method: str,
        path: str,
        *,
        public: bool = False,
        allow: Sequence[str] = (),
        cpu_bound: bool = False,
        openapi: Optional[dict[str, Any]] = None,
    ) -> Callable:
        """`run(request, context)` answers a path: "/{id}/label" below the model, "//labels/{id}" from the root of the
        host. It returns a `Response`, or the body of one.

        Callers of a `public` route need no token; `allow` names roles of which they need one, and the host needs `[auth]`
        then.
        """

        if method.upper() not in METHODS:
            raise ValueError(f"found the method {method!r}, expected one of {', '.join(METHODS)}")
        allowed = names(allow, f"the route {method.upper()} {path}")

        def decorate(run: Callable) -> Callable:
            self.routes[(method.upper(), path)] = Route(run, cpu_bound, openapi, public, allowed)
            return run

        return decorate

    def command(
        self,
        *,
        name: Optional[str] = None,
        description: Optional[str] = None,
        arguments: Optional[dict[str, Any]] = None,
        allow: Sequence[str] = (),
        saves: bool = False,
        cpu_bound: bool = False,
        about_one: bool = True,
    ) -> Callable:
        """`run(arguments, current, context)` is a command, called like the function unless it has another name.

        `arguments` is a JSON Schema, which the host checks. `allow` names roles of which a caller needs one, and the host
        needs `[auth]` then; whoever may update runs a command that names none. With `saves`, the result replaces the document instead of
        only being answered. A command that is `cpu_bound` runs on threads of its own and has more time. One that is not
        `about_one` document gets None instead when it is called for none.
        """

        def decorate(run: Callable) -> Callable:
            called = name or run.__name__
            allowed = names(allow, f"the command {called}")
            self.commands[called] = Command(run, description, arguments, saves, cpu_bound, about_one, allowed)
            return run

        return decorate

    def _hooked(self, name: str, hook: Callable) -> Callable:
        self.hooks[name] = hook
        return hook

    def _lives(self, name: str, part: Callable) -> Callable:
        self.life[name] = part
        return part
