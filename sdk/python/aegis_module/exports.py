"""What every component exports: the model's code, called with JSON texts."""


from wit_world.exports.identity import ModuleInfo
from wit_world.imports import spec

from .answering import answering, called, model
from .entity import entity
from .exact import read, written
from .refusal import Refusal


def _text(value) -> str:
    return written(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _said(value):
    return None if value is None else written(value)


class Identity:
    def info(self) -> ModuleInfo:
        said = model()
        return ModuleInfo(said.module, said.module_version, "aegis-module (Python)")


class DescribeModel:
    def describe(self) -> spec.ModelSpec:
        said = model()
        hooks = spec.HookSet(0)
        for name in (*said.hooks, *said.document_hooks.hooks):
            hooks |= spec.HookSet[name]
        datasource = said.datasource and spec.DatasourceSpec(said.datasource, None, None, False, None)
        return spec.ModelSpec(
            name=said.name,
            endpoint=said.endpoint,
            version=said.version,
            domain=said.domain,
            description=said.description,
            id_field=said.id_field,
            fields=[field.spec(name) for name, field in said.fields.items()],
            schema=_said(said.schema),
            strict=said.strict,
            hooks=hooks,
            mixins=[mixin for name, field in said.fields.items() for mixin in field.mixins(name)],
            ports=[],
            relations=[],
            commands=[
                spec.CommandSpec(name, one.description, one.allow, _said(one.arguments), one.saves, one.cpu_bound)
                for name, one in said.commands.items()
            ],
            acl=[rule.spec() for rule in said.acl],
            serializers=[],
            datasource=datasource or None,
            subscriptions=[spec.SubscriptionSpec(pattern, None, None, 1, True) for pattern in said.handlers],
            routes=[
                spec.RouteSpec(
                    spec.HttpMethod[method], path, one.public, one.allow, one.cpu_bound, _said(one.openapi)
                )
                for (method, path), one in said.routes.items()
            ],
            preload=0,
            extensions=[],
        )


class Hooks:
    def on_create(self, context, input):
        with answering():
            return _text(called(model().hooks["ON_CREATE"], read(input), context))

    def validate(self, context, before, after):
        with answering():
            before = None if before is None else read(before)
            called(model().hooks["VALIDATE"], read(after), before, context)

    def on_update(self, context, current, changes):
        with answering():
            return _text(called(model().hooks["ON_UPDATE"], entity(current), read(changes), context))

    def on_delete(self, context, current):
        with answering():
            called(model().hooks["ON_DELETE"], entity(current), context)

    def on_load(self, context, stored):
        with answering():
            return _text(called(model().hooks["ON_LOAD"], entity(stored), context))


class Commands:
    def run(self, context, command, target, args):
        with answering():
            said = model().commands[command]
            if said.about_one and target is None:
                raise Refusal("invalid", "this command is about one document")
            return _text(called(said.run, read(args), entity(target), context))


class Lifecycle:
    def init(self, config):
        self._told("begin", config)

    def reconfigure(self, config):
        self._told("reconfigure" if "reconfigure" in model().life else "begin", config)

    def drain(self):
        with answering():
            called(model().life.get("drain", _nothing))

    def health(self):
        with answering():
            called(model().life.get("health", _nothing))

    def _told(self, part, config):
        with answering():
            called(model().life.get(part, _nothing), read(config))


class Handover:
    def save(self):
        with answering():
            return _text(called(model().life["save"])).encode()

    def restore(self, from_version, state):
        with answering():
            called(model().life["restore"], read(state), from_version)


def _nothing(*_):
    pass
