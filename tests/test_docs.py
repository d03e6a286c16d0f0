"""README and docs: every command in them is one that can be given, and every page is reached."""

from __future__ import annotations

import re
import runpy
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from genet.arch.network import Network
from genet.cli.parser import parser
from genet.pipeline.finish import FINISH
from genet.pipeline.run_folder import RunFolder
from genet.search.outcome import Outcome, Outcomes, TournamentWinner, TrainedNetwork, UnmetBudget
from genet.storage import Journal
from genet.training.image_identity import NOTE

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> Iterator[tuple[str, str]]:
    """Every command of the pages, in blocks and between backquotes, without what explains it."""
    for page in PAGES:
        text = page.read_text()
        blocks = [line.strip() for line in text.splitlines() if line.startswith("    genet ")]
        for found in [*blocks, *re.findall(r"`(genet [^`]+)`", text)]:
            for command in re.split(r" && |; (?=genet )|: (?=genet )", re.split(r"\s{2,}", found)[0]):
                if command.startswith("genet ") and not re.search(r"[|\[…]|\.\.\.", command):
                    yield page.name, command


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_a_command_of_the_docs_can_be_given(page: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [re.sub(r"^(N|B|W|R)$", "1", word) for word in shlex.split(command, comments=True)[1:]]
    if len(words) == 1:  # a command named, not given
        assert words[0] in parser().format_help().split()
        return
    try:
        parser().parse_args(words)
    except SystemExit as end:
        pytest.fail(f"{page}: {command}: {capsys.readouterr().err.splitlines()[-1]}") if end.code else None


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_is_short_and_reaches_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    for page in PAGES[1:]:
        assert str(page.relative_to(ROOT)) in text


@pytest.mark.parametrize("name", ["recipes.md", "search-spaces.md"])
def test_the_pages_of_keys_are_those_that_the_records_make(name: str) -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["page"](name)
    assert (ROOT / "docs" / name).read_text() == made, "python docs/make_reference.py makes them anew"


def test_the_stopwatch_for_onnx_runtime_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx
    from onnx import TensorProto, helper

    given, answer = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 8, 8]) for name in ("images", "logits"))
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["logits"])], "g", [given], [answer])
    (tmp_path / "export").mkdir()
    onnx.save(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "export" / "model.onnx"
    )
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "onnx-runtime.md").read_text()
    (block,) = re.findall(r"^    import time.*?p99.*?$", page, re.MULTILINE | re.DOTALL)
    exec(textwrap.dedent(block), {})
    assert re.fullmatch(r"mean [\d.]+, median [\d.]+, p99 [\d.]+ ms\n", capsys.readouterr().out)


def test_every_file_of_a_run_is_described() -> None:
    files = [*vars(RunFolder(Path("run"))).values(), Path(NOTE), Path(FINISH)]
    names = {(file.path if isinstance(file, Journal) else file).name for file in files} - {"run"}
    described = (ROOT / "docs" / "run-folder.md").read_text()
    assert not [name for name in sorted(names) if name.replace("master.json", "master.safetensors") not in described]


def test_every_field_of_the_results_is_described() -> None:
    text = (ROOT / "docs" / "run-folder.md").read_text()
    records = Outcomes, Outcome, UnmetBudget, TrainedNetwork, TournamentWinner
    fields = {field for record in records for field in record.model_fields}
    assert {field for field in fields if f"`{field}`" not in text} == set()


def test_every_notation_in_the_docs_reads_back() -> None:
    notations = [(page.name, found) for page in PAGES for found in re.findall(r'@\d+x\d+ \|[^`"\n]+', page.read_text())]
    assert len(notations) > 3
    for page, notation in ((page, each) for page, each in notations if "..." not in each):
        assert str(Network.parse(notation.replace("\\|", "|"))), page
