#!/usr/bin/env python3
"""Makes a component of a module in Python: its file, what that imports, and a CPython that has begun already.

The component imports what the module uses of the host, and exports what its model has code for.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: The contract: beside this file when it was packed, in the sources otherwise.
CONTRACT = next(folder for folder in (HERE / "wit", HERE.parent.parent / "wit") if (folder / "types.wit").exists())
#: Where the tool is that `requirements.txt` names.
VENV = HERE / ".venv"

USAGE = "usage: build.py SOURCE.py OUTPUT.wasm [FOLDER...], with folders of packages that the source imports"

#: All that a module can use and offer.
WHOLE = {
    "used": ["clock", "config", "documents", "events", "http", "log", "metrics", "models", "random", "secrets", "spec"],
    "offered": [
        "identity", "describe-model", "lifecycle", "hooks", "document-hooks", "commands", "routes", "event-handlers",
        "handover",
    ],
}
#: The classes that a component exports, by interface: where they are, and what they are called.
CLASSES = {
    "document-hooks": ("held", "DocumentHooks"),
    "routes": ("routing", "Routes"),
    "event-handlers": ("event", "EventHandlers"),
}


def tool() -> str:
    """The path of componentize-py."""
    for folder in (VENV / "bin", Path(sys.executable).parent):
        if (folder / "componentize-py").exists():
            return str(folder / "componentize-py")
    found = shutil.which("componentize-py")
    if found is None:
        sys.exit(
            f"found no componentize-py; python3 -m venv {VENV} && "
            f"{VENV}/bin/pip install -r {HERE}/requirements.txt brings it"
        )
    return found


def run(words: list[str], **options) -> subprocess.CompletedProcess:
    """Runs a program that has said what is wrong when it fails."""
    done = subprocess.run(words, **options)
    if done.returncode != 0:
        sys.exit(1)
    return done


def write_world(folder: Path, parts: dict) -> list[str]:
    """Writes the world of these parts into a folder; the options that name it."""
    if not (folder / "deps").exists():
        shutil.copytree(CONTRACT, folder / "deps" / "aegis-module")
    lines = [f"import aegis:module/{name}@1.0.0;" for name in {**dict.fromkeys(parts["used"]), "spec": None}]
    lines += [f"export aegis:module/{name}@1.0.0;" for name in parts["offered"]]
    (folder / "world.wit").write_text("package aegis:python;\nworld module {\n" + "\n".join(lines) + "\n}\n")
    return ["-q", "-d", str(folder), "-w", "module"]


def parts_of(name: str, place: Path, paths: list[Path]) -> dict:
    """What a module uses and offers, found out by importing it."""
    bindings = place / "bindings"
    run([tool(), *write_world(place / "whole", WHOLE), "bindings", str(bindings)])
    places = os.pathsep.join(str(path) for path in (bindings, *paths))
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
    said = run([sys.executable, str(HERE / "world.py"), name], env=environment, stdout=subprocess.PIPE, text=True)
    return json.loads(said.stdout.splitlines()[-1])


def component(name: str, offered: list[str]) -> str:
    """The module with the classes that the component exports, beside the module that says what they are about."""
    lines = []
    for interface in offered:
        usual = "".join(part.capitalize() for part in interface.split("-"))
        place, exported = CLASSES.get(interface, ("exports", usual))
        lines.append(f"from aegis_module.{place} import {exported}\n")
    return "".join(lines) + f"import {name}\n"


def main(words: list[str]) -> None:
    if len(words) < 2:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    shown = words[1]
    source, output = (Path(word).resolve() for word in words[:2])
    folders = [Path(word).resolve() for word in words[2:]]
    if not source.stem.isidentifier() or not source.is_file():
        sys.exit(f"found {words[0]}, expected a file whose name can be imported")
    with tempfile.TemporaryDirectory(prefix="aegis-module-") as place:
        place = Path(place)
        paths = [source.parent, HERE, *folders]
        parts = parts_of(source.stem, place, paths)
        (place / "code").mkdir()
        (place / "code" / "component.py").write_text(component(source.stem, parts["offered"]))
        output.parent.mkdir(parents=True, exist_ok=True)
        searched = [word for folder in (place / "code", *paths) for word in ("-p", str(folder))]
        made = place / "module.wasm"
        world = write_world(place / "wit", parts)
        run([tool(), *world, "componentize", "component", *searched, "-o", str(made)])
        shutil.move(made, output)
    print(f"{shown}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
