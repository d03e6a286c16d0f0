"""The package's words: docstrings that say what a function does, and messages that say what failed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import genet

FOLDER = Path(genet.__file__).parent
QUESTIONS = ("What", "Where", "How", "Whether", "Why", "Who")
OLD_FORM = re.compile(r"must .*, and (is|has|does|are|do|cannot|was|were)\b", re.DOTALL)


def joined(node: ast.AST) -> str | None:
    """A string as the parser left it, with f-strings and sums of strings in one; None for what is no string."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(joined(part) or "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = joined(node.left), joined(node.right)
        return None if left is None or right is None else left + right
    return None


def old_words(source: str) -> Iterator[tuple[int, str]]:
    """Lines of a module with a docstring that asks, or a message of the old form."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            if re.match(rf"({'|'.join(QUESTIONS)})\b", docstring):
                yield node.lineno, docstring
        elif (text := joined(node)) and OLD_FORM.search(text):
            yield getattr(node, "lineno", 0), text


def test_the_package_says_what_it_does_and_what_failed() -> None:
    found = [
        f"{file.relative_to(FOLDER.parent)}:{line}: {text}"
        for file in sorted(FOLDER.rglob("*.py"))
        for line, text in old_words(file.read_text())
    ]
    assert not found, "\n".join(found)


def test_old_words_are_found_however_they_are_written() -> None:
    planted = (
        'def size():\n    """How large it is."""\n',
        'async def size():\n    """Whether it fits."""\n',
        'raise ValueError(f"{name}: must be a file, and is {kind}")\n',
        'raise ValueError("must fit into memory, "\n    f"and does not ({why})")\n',
        'raise ValueError("must run here, " + "and cannot")\n',
    )
    assert [len({line for line, _ in old_words(source)}) for source in planted] == [1] * len(planted)
    assert not [*old_words('def size():\n    """Return how large it is."""\n    raise ValueError("must be at least 3, got 2")\n')]
