"""`genet init`: a commented recipe and search space to start from."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from genet.arch.network import legal_name
from genet.config.reader import shipped_files
from genet.errors import RunError
from genet.names import shown, typed
from genet.storage import write_atomic

Answer = dict[str, Any]


def run(arguments: argparse.Namespace) -> Answer:
    """Write a commented recipe and search space, named after the file as far as its name is legal."""
    recipe: Path = arguments.file
    name = legal_name(recipe.stem)
    space = recipe.parent / f"{name}-space.yaml"
    for file in (recipe, space):
        if file.exists():
            raise RunError(f"{file} exists already, expected a new file; name another")
    if not recipe.name.isprintable():
        raise RunError(f"{shown(recipe.name)}: got hidden characters in a file's name, expected such as are seen; name another")
    words = {"NAME": name, "FILE": typed(Path(recipe.name))}
    for file, shipped in ((space, "space"), (recipe, "recipe")):  # the longer name first, for it may be too long
        text = shipped_files("templates")[shipped].read_text(encoding="utf-8")
        write_atomic(file, re.sub("|".join(words), lambda found: words[found[0]], text).encode())
    print(f"wrote {recipe} and {space}; then: genet check {typed(recipe)} && genet run {typed(recipe)} --data FOLDER")
    return {"recipe": str(recipe), "space": str(space)}
