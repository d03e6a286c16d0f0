"""The design's floors, read from the imports: they go down only, and all thinking stays apart from torch."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import genet

PACKAGE = Path(genet.__file__).parent
MODULES = {
    ".".join(("genet", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
}
# From the ground up. Folders on one floor never know each other.
FLOORS = [
    {"errors", "signals", "statistics"},
    {"storage", "names"},
    {"device", "progress"},
    {"arch"},
    {"config"},
    {"models"},
    {"training"},
    {"latency"},
    {"trials"},
    {"export"},
    {"search"},
    {"report"},
    {"pipeline"},
    {"studies"},
    {"cli"},
]
NEVER_TORCH = [
    "arch",
    "config",
    "search",
    "report",
    "studies.align.objective",
    "studies.align.layer",
    "studies.align.matrix",
    "studies.align.place",
    "studies.align.program",
    "studies.align.prune",
    "studies.align.scale",
    "studies.align.subject",
    "studies.align.study",
    "studies.filter",
    "studies.survey",
    "studies.tables",
    "latency.estimate",
    "latency.evidence",
    "latency.noise",
    "latency.ops",
    "latency.predict",
    "latency.profile",
    "latency.staircase",
    "latency.table",
    "latency.timing.curves",
    "latency.timing.ratio",
    "latency.workload",
    "trials.plan",
    "trials.runners.runner",
    "statistics",
    "storage",
    "errors",
    "names",
    "progress",
    "pipeline.finish",
    "pipeline.init_rules",
    "pipeline.reach",
    "pipeline.run_folder",
    "pipeline.shortfalls",
    "training.inventory",
    "training.log",
    "cli.main",
    "cli.options",
    "cli.final_table",
    "cli.parser",
    "cli.run",
]


def room(module: str) -> str:
    return module.split(".")[1]


def floor(module: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room(module) in rooms)


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


@functools.cache
def imports(module: str) -> frozenset[str]:
    """The project's modules that one imports, inside functions too."""
    found = set[str]()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("genet"):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= inner or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("genet.")}
    return frozenset(found & set(MODULES))


def test_imports_go_down_only() -> None:
    pairs = [(module, imported) for module in MODULES for imported in imports(module) if room(imported) != room(module)]
    assert [f"{one} imports {other}, which is not below it" for one, other in pairs if floor(other) >= floor(one)] == []


def test_no_module_depends_on_itself_through_others() -> None:
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()


def test_no_room_is_a_lumber_room() -> None:
    names = {part for path in PACKAGE.rglob("*") for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not names & {"core", "utils", "util", "common", "helpers", "tools", "misc"}


def test_thinking_never_loads_torch_or_timm() -> None:
    wanted = [module for module in MODULES if any(module.removeprefix("genet.").startswith(prefix) for prefix in NEVER_TORCH)]
    assert [prefix for prefix in NEVER_TORCH if not any(module.startswith(f"genet.{prefix}") for module in wanted)] == []
    code = f"import sys, {', '.join(['genet', *wanted])}; sys.exit(bool({{'torch', 'timm'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_the_command_line_and_progress_print() -> None:
    for module in MODULES:
        calls = {node.func.id for node in ast.walk(tree_of(module)) if _is_plain_call(node)}
        assert "print" not in calls or room(module) in ("cli", "progress"), module


def _is_plain_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def test_every_write_goes_through_storage() -> None:
    writers = {"write_text", "write_bytes", "open", "touch", "mkdir", "savefig", "dump", "rename", "replace"}
    allowed = {("genet.report.drawing", "savefig"), ("genet.config.yaml_tree", "dump")}  # into memory
    for module in MODULES:
        if room(module) == "storage":
            continue
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in writers and (module, name) not in allowed and not _harmless(node, name):
                    pytest.fail(f"{module}:{node.lineno} calls {name}")


def _harmless(node: ast.Call, name: str) -> bool:
    """str.replace(a, b), dataclasses.replace(x, ...), os.open of the null device and Image.open write nothing."""
    owner = getattr(getattr(node.func, "value", None), "id", "")
    return (name == "replace" and (len(node.args) == 2 or owner == "dataclasses")) or (
        name == "open" and owner in ("os", "Image")
    )


def test_modules_and_functions_stay_small_and_explain_themselves() -> None:
    for module, path in MODULES.items():
        tree = tree_of(module)
        assert path.read_text().count("\n") <= 400, f"{module} is too long"
        assert ast.get_docstring(tree), f"{module} has no docstring"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                told = ast.get_docstring(node) or _overrides(node) or _inner(node, tree)
                assert told, f"{module}.{node.name} has no docstring"
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 70, f"{module}.{node.name} is too long"


def _overrides(node: ast.AST) -> bool:
    """A method that only widens its parent's says what it does there."""
    return isinstance(node, ast.FunctionDef) and node.name == "advance"


def _inner(node: ast.AST, tree: ast.Module) -> bool:
    """Functions inside functions are part of them."""
    outer = [part for part in ast.walk(tree) if isinstance(part, ast.FunctionDef) and part is not node]
    return any(node in ast.walk(part) for part in outer)
