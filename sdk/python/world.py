"""Prints what a module uses of the contract and what it offers, as JSON. Run by build.py beside the bindings of the whole
contract, whose functions do nothing here: the module is imported, and none of its functions is called."""

import importlib
import json
import sys
import typing

# The bindings name it, and Python has it from 3.11 on.
if not hasattr(typing, "Self"):
    typing.Self = typing.Any

#: Interfaces of the host, by the package that their bindings are in.
USED = "wit_world.imports."


def offered(model) -> list[str]:
    """The interfaces that the component exports."""
    names = {
        "hooks": model.hooks,
        "document-hooks": model.document_hooks.hooks,
        "commands": model.commands,
        "routes": model.routes,
        "event-handlers": model.handlers,
        "handover": model.life.keys() & {"save", "restore"},
    }
    return ["identity", "describe-model", "lifecycle", *(name for name, code in names.items() if code)]


def main(name: str) -> None:
    # The folder of this file is searched last: a module may be called like one of the files in it.
    del sys.path[0]
    importlib.import_module(name)
    from aegis_module import Model

    if Model.defined is None:
        sys.exit(f"found no Model in {name}.py, expected one")
    halves = {"save", "restore"} - Model.defined.life.keys()
    if len(halves) == 1:
        sys.exit(f"found no function for {halves.pop()} in {name}.py, expected save and restore, or none of them")
    used = sorted(module.removeprefix(USED).replace("_", "-") for module in sys.modules if module.startswith(USED))
    print(json.dumps({"used": used, "offered": offered(Model.defined)}))


if __name__ == "__main__":
    main(sys.argv[1])
