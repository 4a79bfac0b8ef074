"""What the component exports: the model's code, called with JSON texts."""

import json
import traceback
from contextlib import contextmanager

from wit_world.exports.identity import ModuleInfo
from wit_world.imports import spec
from wit_world.imports.types import FaultCode, Fault
from componentize_py_types import Err

from . import log
from .entity import entity
from .model import Model
from .refusal import Refusal, as_fault


def _model() -> Model:
    if Model.defined is None:
        raise LookupError("found no Model in the module, expected one")
    return Model.defined


@contextmanager
def _answering():
    """A `Refusal` becomes an answer; anything else is a defect, and goes to the log."""
    try:
        yield
    except Refusal as refusal:
        raise as_fault(refusal) from None
    except Exception as error:
        stack = traceback.format_exc(limit=8)
        log.error(f"{type(error).__name__}: {error}", stack=stack)
        raise Err(Fault(FaultCode.INTERNAL, "the module has failed", None, False)) from None


def _text(value) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _said(value):
    return None if value is None else json.dumps(value)


class Identity:
    def info(self) -> ModuleInfo:
        model = _model()
        return ModuleInfo(model.module, model.module_version, "aegis-module (Python)")


class DescribeModel:
    def describe(self) -> spec.ModelSpec:
        model = _model()
        hooks = spec.HookSet(0)
        for name in model.hooks:
            hooks |= spec.HookSet[name]
        datasource = model.datasource and spec.DatasourceSpec(model.datasource, None, None, False, None)
        return spec.ModelSpec(
            name=model.name,
            endpoint=model.endpoint,
            version=model.version,
            domain=model.domain,
            description=model.description,
            id_field=model.id_field,
            fields=[field.spec(name) for name, field in model.fields.items()],
            schema=_said(model.schema),
            strict=model.strict,
            hooks=hooks,
            mixins=[mixin for name, field in model.fields.items() for mixin in field.mixins(name)],
            ports=[],
            relations=[],
            commands=[
                spec.CommandSpec(name, one.description, [], _said(one.arguments), one.saves, one.cpu_bound)
                for name, one in model.commands.items()
            ],
            acl=[],
            serializers=[],
            datasource=datasource or None,
            subscriptions=[],
            routes=[],
            preload=0,
            extensions=[],
        )


class Hooks:
    def on_create(self, context, input):
        with _answering():
            return _text(_model().hooks["ON_CREATE"](json.loads(input), context))

    def validate(self, context, before, after):
        with _answering():
            before = None if before is None else json.loads(before)
            _model().hooks["VALIDATE"](json.loads(after), before, context)

    def on_update(self, context, current, changes):
        with _answering():
            return _text(_model().hooks["ON_UPDATE"](entity(current), json.loads(changes), context))

    def on_delete(self, context, current):
        with _answering():
            _model().hooks["ON_DELETE"](entity(current), context)

    def on_load(self, context, stored):
        return stored.data


class Commands:
    def run(self, context, command, target, args):
        with _answering():
            called = _model().commands[command]
            if called.about_one and target is None:
                raise Refusal("invalid", "this command is about one document")
            return _text(called.run(json.loads(args), entity(target), context))


class Lifecycle:
    def init(self, config):
        with _answering():
            if _model().started is not None:
                _model().started(json.loads(config))

    def reconfigure(self, config):
        self.init(config)

    def drain(self):
        pass

    def health(self):
        pass
