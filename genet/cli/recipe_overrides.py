"""The values of the command line that replace those in a recipe's file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from genet.config.overrides import Override, overrides_of_serving, read_settings
from genet.names import check_utf8


def recipe_overrides(arguments: argparse.Namespace) -> list[Override]:
    """Return the values that the options of `genet run` and `genet check` set, except for the folder of the images."""
    setting = {name: value for name in ("device", "runtime", "batch", "threads") if (value := getattr(arguments, name))}
    given = read_settings(arguments.set or ()) + overrides_of_serving(arguments.budget or (), setting)
    if arguments.latency:
        file = check_utf8(str(Path(arguments.latency).absolute()))
        given.append(Override("--latency", "measure.latency_file", json.dumps(file, ensure_ascii=False)))
    return given
