#!/usr/bin/env python3
"""Makes a component of a module in Python: its file, what that imports, and a CPython that has begun already."""

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
        shutil.copytree(CONTRACT, place / "wit" / "deps" / "aegis-module")
        shutil.copy(HERE / "world.wit", place / "wit" / "world.wit")
        # The classes that the component exports, beside the module that says what they are about.
        (place / "component.py").write_text(
            "from aegis_module.exports import Commands, DescribeModel, Hooks, Identity, Lifecycle\n"
            f"import {source.stem}\n"
        )
        output.parent.mkdir(parents=True, exist_ok=True)
        paths = [word for folder in (place, source.parent, HERE, *folders) for word in ("-p", str(folder))]
        made = place / "module.wasm"
        words = ["-q", "-d", str(place / "wit"), "-w", "module", "componentize", "component", *paths, "-o", str(made)]
        if subprocess.run([tool(), *words]).returncode != 0:
            sys.exit(1)
        shutil.move(made, output)
    print(f"{shown}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
