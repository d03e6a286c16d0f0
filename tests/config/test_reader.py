"""Every bad file and what is said about it: file:line:column, the field, the law, the value, the nearest legal one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genet.arch.network import Network
from genet.arch.space import SearchSpace
from genet.config.budget import RULE
from genet.config.reader import (
    RENAMED,
    read_any,
    read_kept_recipe,
    read_network,
    read_recipe,
    read_space,
    read_training,
    shipped_files,
    to_yaml,
)
from genet.config.recipe import Recipe
from genet.errors import SpecError

NETWORK = """\
name: small
input: {channels: 3, classes: 10, resolution: 32}
stem: {kernel: 3, width: 13, stride: 2}
superblocks:
  - {type: XX, depth: 1, width: 48, stride: 2, kernel: 3}
  - {type: BL, depth: 2, width: 64, stride: 2, kernel: 5, ratio: 0.25}
  - {type: DW, depth: 1, width: 32, stride: 1, kernel: 7, ratio: 3}
head: {width: 64}
"""

SPACE = """\
name: tiny
input: {channels: 3, classes: 10, resolutions: [24, 32]}
stem: {kernel: 3, width: 16, stride: 2}
superblocks:
  - {type: XX, depth: 1, width: 16, stride: 2, kernel: 3}
  - type: BL
    depth: 2
    width: 64
    stride: 2
    kernel: 3
    ratio: 0.25
head: {width: 64}
perturb:
  width: [0.5, 2.0]
  depth: [-1, 1]
  kernel: [3, 5]
  ratio: {BL: [0.25], DW: [3]}
  types: [XX, BL]
  trials_per_type: 2
widths: {multiple_of: 16}
"""

RECIPE = """\
name: job
space: tiny.yaml
data: {name: digits, nas_validation: 0.25}
measure: {device: auto, dtype: fp32, batch: 64}
master: {epochs: 12, batch: 64, learning_rate: 0.4, warmup_epochs: 2}
distill: {epochs: 2, learning_rate: 0.1}
select: {budgets: [0.8x, 0.4], measure_top_k: 3}
train: {epochs: 12, learning_rate: 0.4}
seed: 7
"""

Reader = Callable[[str | Path], Any]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files lie in the working folder, so that messages name them as short as they are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return tmp_path


def faults_of(reader: Reader, content: str | bytes, expected: tuple[str, ...], name: str = "bad.yaml") -> None:
    """The file must be refused with exactly the expected lines, in this order."""
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SpecError, match=f"^{re.escape(expected[0])}") as caught:
        reader(name)
    assert caught.value.faults == expected


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) >= 1, f"{old!r} is not in the example"
    return text.replace(old, new, 1)


NETWORK_FAULTS = [
    (
        "unknown key",
        ("head: {width", "head: {widht"),
        ("8:7: head.width: must be given", "8:8: head.widht: is not a key here; did you mean width?"),
    ),
    ("unknown key unlike any", ("name: small", "name: small\nzzz: 1"), ("2:1: zzz: is not a key here",)),
    (
        "unknown key in a list",
        ("depth: 2,", "depth: 2, strid: 1,"),
        ("6:26: superblocks[1].strid: is not a key here; did you mean stride?",),
    ),
    (
        "misspelt type",
        ("type: BL", "type: BLL"),
        ("6:12: superblocks[1].type: must be XX, BL or DW (got 'BLL'); did you mean BL?",),
    ),
    ("missing key", ("stride: 2, kernel: 3}", "kernel: 3}"), ("5:5: superblocks[0].stride: must be given",)),
    ("missing section", ("stem: {kernel: 3, width: 13, stride: 2}\n", ""), ("1:1: stem: must be given",)),
    ("width 0", ("width: 64", "width: 0"), ("6:33: superblocks[1].width: must be at least 8 (got 0); nearest 8",)),
    ("negative width", ("width: 64", "width: -8"), ("6:33: superblocks[1].width: must be at least 8 (got -8); nearest 8",)),
    (
        "width off the multiples",
        ("width: 48", "width: 44"),
        ("5:33: superblocks[0].width: must be a multiple of 8 (got 44); nearest 40 or 48",),
    ),
    ("width as text", ("width: 48", "width: '48'"), ("5:33: superblocks[0].width: must be a whole number (got '48')",)),
    ("width as a fraction", ("width: 48", "width: 48.0"), ("5:33: superblocks[0].width: must be a whole number (got 48.0)",)),
    ("width as truth", ("width: 48", "width: true"), ("5:33: superblocks[0].width: must be a whole number (got True)",)),
    ("width as nothing", ("width: 48", "width: null"), ("5:33: superblocks[0].width: must be a whole number (got None)",)),
    ("stem width 0", ("width: 13", "width: 0"), ("3:26: stem.width: must be at least 1 (got 0); nearest 1",)),
    (
        "inner width off the multiples",
        ("ratio: 0.25", "ratio: 0.3"),
        (
            "6:66: superblocks[1].ratio: must make the inner width a multiple of 8, but 64 * 0.3 = 19.2 (got 0.3); "
            "nearest inner width 16 or 24",
        ),
    ),
    (
        "depth 0 with a stride",
        ("depth: 2", "depth: 0"),
        (
            "6:45: superblocks[1].stride: must be 1 if the depth is 0, as there is no block to stride (got 2); "
            "nearest 1, or a depth of 1",
        ),
    ),
    ("depth -1", ("depth: 2", "depth: -1"), ("6:23: superblocks[1].depth: must be at least 0 (got -1); nearest 0",)),
    (
        "ratio on XX",
        ("kernel: 3}\n  - {type: BL", "kernel: 3, ratio: 1}\n  - {type: BL"),
        ("5:66: superblocks[0].ratio: must be absent for XX, which has no bottleneck (got 1)",),
    ),
    (
        "ratio missing on BL",
        (", ratio: 0.25", ""),
        ("6:5: superblocks[1].ratio: must be given and at most 1 for BL, such as 0.25 (got None)",),
    ),
    (
        "ratio above 1 on BL",
        ("ratio: 0.25", "ratio: 2"),
        ("6:66: superblocks[1].ratio: must be given and at most 1 for BL, such as 0.25 (got 2)",),
    ),
    (
        "ratio below 1 on DW",
        ("ratio: 3", "ratio: 0.5"),
        ("7:66: superblocks[2].ratio: must be given and at least 1 for DW, such as 6 (got 0.5)",),
    ),
    ("ratio 0", ("ratio: 0.25", "ratio: 0"), ("6:66: superblocks[1].ratio: must be above 0 (got 0)",)),
    ("infinite ratio", ("ratio: 0.25", "ratio: 1e999"), ("6:66: superblocks[1].ratio: must be a finite number (got inf)",)),
    ("kernel 4", ("kernel: 5", "kernel: 4"), ("6:56: superblocks[1].kernel: must be 3, 5 or 7 (got 4); nearest 3",)),
    ("kernel 9", ("kernel: 5", "kernel: 9"), ("6:56: superblocks[1].kernel: must be 3, 5 or 7 (got 9); nearest 7",)),
    ("stride 3", ("width: 13, stride: 2", "width: 13, stride: 3"), ("3:38: stem.stride: must be 1 or 2 (got 3); nearest 2",)),
    (
        "total stride over the resolution",
        ("resolution: 32", "resolution: 7"),
        ("5:3: superblocks: must have a total stride of at most the resolution 7, but it is 8 (got '3 super-blocks')",),
    ),
    ("one class", ("classes: 10", "classes: 1"), ("2:31: input.classes: must be at least 2 (got 1); nearest 2",)),
    ("a list for a mapping", ("head: {width: 64}", "head: [64]"), ("8:7: head: must be a mapping of keys to values (got [64])",)),
    (
        "duplicate key",
        ("head: {width: 64}", "head: {width: 64}\nhead: {width: 72}"),
        ("9:1: head: must be given once, but is on line 8 too",),
    ),
    ("duplicate inner key", ("depth: 2,", "depth: 2, depth: 3,"), ("6:26: depth: must be given once, but is on line 6 too",)),
    ("anchor", ("stem: {", "stem: &a {"), ("3:7: anchors and aliases (& and *) are not allowed; write the value out",)),
    (
        "alias",
        ("head: {width: 64}", "head: &a {width: 64}\nfoot: *a"),
        (
            "8:7: anchors and aliases (& and *) are not allowed; write the value out",
            "9:7: anchors and aliases (& and *) are not allowed; write the value out",
        ),
    ),
    (
        "merge key",
        ("head: {width: 64}", "head: {<<: {width: 64}}"),
        ("8:7: head.width: must be given", "8:8: head.<<: is not a key here"),
    ),
    ("tab", ("stem: {", "stem:\n\t{"), ("4:1: a tab is not allowed in YAML; indent with spaces",)),
    ("a list as a key", ("head:", "? [a]\n: 1\nhead:"), ("8:3: a key must be a plain word",)),
    (
        "a bracket too few",
        ("head: {width: 64}", "head: {width: 64"),
        ("9:1: must be YAML: expected ',' or '}', but got '<stream end>'",),
    ),
    ("two documents", ("head:", "---\nhead:"), ("8:1: must be YAML: but found another document",)),
]


def located(faults: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(f"{name}:{fault}" for fault in faults)


@pytest.mark.parametrize(("change", "faults"), [row[1:] for row in NETWORK_FAULTS], ids=[row[0] for row in NETWORK_FAULTS])
def test_a_fault_of_a_network_is_told_with_its_place(change: tuple[str, str], faults: tuple[str, ...]) -> None:
    faults_of(read_network, changed(NETWORK, *change), located(faults, "bad.yaml"))


SPACE_FAULTS = [
    (
        "depths that only fall",
        ("depth: [-1, 1]", "depth: [-1, -1]"),
        ("15:15: perturb.depth[1]: must be at least 0 (got -1); nearest 0",),
    ),
    (
        "depths that only rise",
        ("depth: [-1, 1]", "depth: [1, 2]"),
        ("15:11: perturb.depth[0]: must be at most 0 (got 1); nearest 0",),
    ),
    ("one depth for two", ("depth: [-1, 1]", "depth: [-1]"), ("15:10: perturb.depth[1]: must be given",)),
    (
        "three depths for two",
        ("depth: [-1, 1]", "depth: [-1, 0, 1]"),
        ("15:10: perturb.depth: must have 2 entries (got [-1, 0, 1])",),
    ),
    (
        "widths the wrong way round",
        ("width: [0.5, 2.0]", "width: [2.0, 0.5]"),
        (
            "14:11: perturb.width[0]: must be at most 1 (got 2.0); nearest 1",
            "14:16: perturb.width[1]: must be at least 1 (got 0.5); nearest 1",
        ),
    ),
    ("no kernel", ("kernel: [3, 5]", "kernel: []"), ("16:11: perturb.kernel: must have at least one entry (got [])",)),
    ("kernel 4", ("kernel: [3, 5]", "kernel: [3, 4]"), ("16:15: perturb.kernel[1]: must be 3, 5 or 7 (got 4); nearest 3",)),
    ("a kernel for a list", ("kernel: [3, 5]", "kernel: 3"), ("16:11: perturb.kernel: must be a list (got 3)",)),
    ("ratio above 1 for BL", ("BL: [0.25]", "BL: [4]"), ("17:16: perturb.ratio.BL[0]: must be at most 1 (got 4); nearest 1",)),
    ("ratio for XX", ("DW: [3]", "XX: [3]"), ("17:23: perturb.ratio.XX: is not a key here",)),
    (
        "unknown type",
        ("types: [XX", "types: [XY"),
        ("18:11: perturb.types[0]: must be XX, BL or DW (got 'XY'); did you mean XX?",),
    ),
    (
        "no samples",
        ("trials_per_type: 2", "trials_per_type: 0"),
        ("19:20: perturb.trials_per_type: must be at least 1 (got 0); nearest 1",),
    ),
    (
        "unknown width rule",
        ("{multiple_of: 16}", "wave-alined"),
        ("20:9: widths: must be wave-aligned (got 'wave-alined'); did you mean wave-aligned?",),
    ),
    (
        "misspelt width rule",
        ("{multiple_of: 16}", "{multiple-of: 16}"),
        (
            "20:9: widths.multiple_of: must be given",
            "20:10: widths.multiple-of: is not a key here; did you mean multiple_of?",
        ),
    ),
    ("equal resolutions", ("[24, 32]", "[24, 24]"), ("2:48: input.resolutions: must all differ (got [24, 24])",)),
    (
        "one resolution under the total stride",
        ("[24, 32]", "[7, 32]"),
        ("5:3: superblocks: must have a total stride of at most the resolution 7, but it is 8 (got '2 super-blocks')",),
    ),
    (
        "a network's key",
        ("resolutions: [24, 32]", "resolution: 24"),
        ("2:8: input.resolutions: must be given", "2:35: input.resolution: is not a key here; did you mean resolutions?"),
    ),
]


@pytest.mark.parametrize(("change", "faults"), [row[1:] for row in SPACE_FAULTS], ids=[row[0] for row in SPACE_FAULTS])
def test_a_fault_of_a_space_is_told_with_its_place(change: tuple[str, str], faults: tuple[str, ...]) -> None:
    faults_of(read_space, changed(SPACE, *change), located(faults, "bad.yaml"))


RECIPE_FAULTS = [
    ("budgets as text", ("[0.8x, 0.4]", "0.8x"), ("7:19: select.budgets: must be a list (got '0.8x')",)),
    (
        "bad budgets",
        ("[0.8x, 0.4]", "[abc, 0x, -1, 0.4, true, [1]]"),
        (
            f"7:20: select.budgets[0]: {RULE} (got 'abc')",
            f"7:25: select.budgets[1]: {RULE} (got '0x')",
            f"7:29: select.budgets[2]: {RULE} (got -1)",
            f"7:38: select.budgets[4]: {RULE} (got True)",
            f"7:44: select.budgets[5]: {RULE} (got [1])",
        ),
    ),
    ("no budget", ("[0.8x, 0.4]", "[]"), ("7:19: select.budgets: must have at least one entry (got [])",)),
    ("equal budgets", ("[0.8x, 0.4]", "[0.4, 0.4]"), ("7:19: select.budgets: must all differ (got [0.4, 0.4])",)),
    (
        "equal budgets in two forms",
        ("[0.8x, 0.4]", "[0.2ms/image, 12.8ms]"),
        (
            "7:9: select: must have budgets that differ: 0.2ms/image is 12.8ms at batch 64 "
            "(got {'budgets': ['0.2ms/image', '12.8ms'], 'measure_top_k': 3})",
        ),
    ),
    (
        "a quoted number",
        ("learning_rate: 0.1", "learning_rate: '1e-4'"),
        ("6:37: distill.learning_rate: must be a number (got '1e-4')",),
    ),
    ("learning rate 0", ("learning_rate: 0.1", "learning_rate: 0"), ("6:37: distill.learning_rate: must be above 0 (got 0)",)),
    (
        "warm-up without end",
        ("warmup_epochs: 2", "warmup_epochs: 12"),
        ("5:68: master.warmup_epochs: must be fewer than the 12 epochs (got 12)",),
    ),
    (
        "unknown device",
        ("device: auto", "device: gpu"),
        ("4:19: measure.device: must be auto, cpu, cuda, cuda:N or estimate:GPU (got 'gpu'); nearest auto",),
    ),
    (
        "unknown number format",
        ("dtype: fp32", "dtype: fp23"),
        ("4:32: measure.dtype: must be fp32, fp16, bf16 or int8 (got 'fp23'); did you mean fp32?",),
    ),
    (
        "all images held out",
        ("nas_validation: 0.25", "nas_validation: 1"),
        ("3:38: data.nas_validation: must be below 1 (got 1)",),
    ),
    (
        "foreign resolution",
        ("seed: 7", "resolution: 28"),
        ("9:13: resolution: must be one of the space's resolutions 24, 32 (got 28)",),
    ),
    ("negative seed", ("seed: 7", "seed: -1"), ("9:7: seed: must be at least 0 (got -1); nearest 0",)),
    ("missing space file", ("tiny.yaml", "tinny.yaml"), ("2:8: space: tinny.yaml: must be a file that exists; check the path",)),
    (
        "misspelt space",
        ("tiny.yaml", "digitz"),
        ("2:8: space: digitz: must be a file or one of cifar10, digits, masternet; did you mean digits?",),
    ),
    ("no space", ("space: tiny.yaml\n", ""), ("1:1: space: must be given",)),
    ("a list for a space", ("tiny.yaml", "[1]"), ("2:8: space: must be a mapping of keys to values (got [1])",)),
]


@pytest.mark.parametrize(("change", "faults"), [row[1:] for row in RECIPE_FAULTS], ids=[row[0] for row in RECIPE_FAULTS])
def test_a_fault_of_a_recipe_is_told_with_its_place(change: tuple[str, str], faults: tuple[str, ...]) -> None:
    faults_of(read_recipe, changed(RECIPE, *change), located(faults, "bad.yaml"))


EMPTY = "bad.yaml: must not be empty; `genet init` writes an example to start from"
BINARY = "bad.yaml: got bytes that are not UTF-8, expected a text file in UTF-8"
FILE_FAULTS = [
    ("empty", b"", (EMPTY,)),
    ("only a comment", b"# nothing\n", (EMPTY,)),
    ("binary", bytes(range(256)), (BINARY,)),
    ("an image", b"\x89PNG\r\n\x1a\n", (BINARY,)),
    ("UTF-16", NETWORK.encode("utf-16"), (BINARY,)),
    ("a control character", b"name: \x07", ("bad.yaml: got the control character 7, expected plain text",)),
    ("a word", b"hello", ("bad.yaml:1:1: must be a mapping of keys to values (got 'hello')",)),
    ("a list", b"- 1", ("bad.yaml:1:1: must be a mapping of keys to values (got [1])",)),
]


@pytest.mark.parametrize("reader", [read_network, read_space, read_recipe, read_any])
@pytest.mark.parametrize(("content", "faults"), [row[1:] for row in FILE_FAULTS], ids=[row[0] for row in FILE_FAULTS])
def test_a_file_that_is_no_specification_at_all_is_refused(content: bytes, faults: tuple[str, ...], reader: Reader) -> None:
    faults_of(reader, content, faults)


@pytest.mark.parametrize("reader", [read_network, read_space, read_recipe, read_any])
def test_a_missing_file_or_a_folder_is_refused(reader: Reader) -> None:
    Path("folder").mkdir()
    with pytest.raises(SpecError, match=r"^none\.yaml: must be a file that exists; check the path$"):
        reader("none.yaml")
    with pytest.raises(SpecError, match=r"^folder: must be a file or one of "):
        reader(Path("folder"))


def test_a_folder_called_like_a_recipe_does_not_hide_it() -> None:
    Path("cifar10").mkdir()
    assert read_recipe("cifar10").name == "cifar10"


@pytest.mark.parametrize("key", ["grid", "aligned", "float", "str"])
def test_an_unknown_key_may_have_any_name(key: str) -> None:
    Path("net.yaml").write_text(NETWORK + f"{key}: 1\n")
    with pytest.raises(SpecError, match=f"{key}: is not a key here"):
        read_network("net.yaml")


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "''", "a b"])
def test_a_name_that_could_not_name_a_file_is_refused(name: str) -> None:
    Path("net.yaml").write_text(changed(NETWORK, "name: small", f"name: {name}"))
    with pytest.raises(SpecError, match="name: must consist of letters, digits, dots, dashes and underscores"):
        read_network("net.yaml")


def test_a_recipes_images_lie_where_its_file_says_seen_from_the_file() -> None:
    Path("sub").mkdir()
    Path("sub/tiny.yaml").write_text(Path("tiny.yaml").read_text())
    Path("sub/job.yaml").write_text(changed(RECIPE, "name: digits", "name: folder, root: images"))
    assert read_recipe("sub/job.yaml").data.root == str(Path("sub/images").absolute())


@pytest.mark.parametrize(
    ("reader", "name", "suggestion"),
    [(read_network, "genet-lite", "genet-light"), (read_space, "cifar", "cifar10"), (read_recipe, "digit", "digits")],
)
def test_a_misspelt_shipped_name_is_answered_with_the_nearest(reader: Reader, name: str, suggestion: str) -> None:
    with pytest.raises(SpecError, match=rf"^{name}: must be a file or one of .*; did you mean {suggestion}\?$"):
        reader(name)


def test_several_faults_of_one_file_are_told_at_once_in_the_order_of_the_file() -> None:
    content = """\
nam: small
input: {channels: 0, classes: 10, resolution: 32}
stem: {kernel: 4, width: 13, stride: 2}
superblocks:
  - {type: XX, depth: 1, width: 44, stride: 2, kernel: 3}
  - {type: BL, depth: 0, width: 64, stride: 2, kernel: 5, ratio: 0.25, ratio: 0.5}
  - {type: DW, depth: 1, width: 32, stride: 3, kernel: 7}
head: {width: none}
"""
    faults = (
        "1:1: nam: is not a key here; did you mean name?",
        "2:19: input.channels: must be at least 1 (got 0); nearest 1",
        "3:16: stem.kernel: must be 3, 5 or 7 (got 4); nearest 3",
        "5:33: superblocks[0].width: must be a multiple of 8 (got 44); nearest 40 or 48",
        "6:45: superblocks[1].stride: must be 1 if the depth is 0, as there is no block to stride (got 2); "
        "nearest 1, or a depth of 1",
        "6:72: ratio: must be given once, but is on line 6 too",
        "7:5: superblocks[2].ratio: must be given and at least 1 for DW, such as 6 (got None)",
        "7:45: superblocks[2].stride: must be 1 or 2 (got 3); nearest 2",
        "8:15: head.width: must be a whole number (got 'none')",
    )
    faults_of(read_network, content, located(faults, "bad.yaml"))


def test_a_faulty_super_block_and_a_total_stride_too_large_are_told_at_once() -> None:
    content = changed(changed(NETWORK, "resolution: 32", "resolution: 4"), "width: 64", "width: 68")
    faults = (
        "5:3: superblocks: must have a total stride of at most the resolution 4, but it is 8 (got '3 super-blocks')",
        "6:33: superblocks[1].width: must be a multiple of 8 (got 68); nearest 64 or 72",
    )
    faults_of(read_network, content, located(faults, "bad.yaml"))


def test_faults_of_a_named_space_carry_its_own_file_and_line() -> None:
    Path("other.yaml").write_text(changed(changed(SPACE, "depth: 2", "depth: -1"), "trials_per_type: 2", "trials_per_type: 0"))
    content = changed(changed(RECIPE, "tiny.yaml", "other.yaml"), "seed: 7", "sed: 7")
    faults = (
        "bad.yaml:9:1: sed: is not a key here; did you mean seed?",
        "other.yaml:7:12: space.superblocks[1].depth: must be at least 0 (got -1); nearest 0",
        "other.yaml:19:20: space.perturb.trials_per_type: must be at least 1 (got 0); nearest 1",
    )
    faults_of(read_recipe, content, faults)


def test_a_named_space_that_is_no_yaml_is_told_from_where_it_is_named() -> None:
    Path("other.yaml").write_text("name: [\n")
    fault = "bad.yaml:2:8: space: other.yaml:2:1: must be YAML: expected the node content, but found '<stream end>'"
    faults_of(read_recipe, changed(RECIPE, "tiny.yaml", "other.yaml"), (fault,))


def test_a_space_written_out_in_the_recipe_keeps_the_recipes_lines() -> None:
    indented = "".join(f"  {line}\n" for line in changed(SPACE, "trials_per_type: 2", "trials_per_type: 0").splitlines())
    content = changed(RECIPE, "space: tiny.yaml\n", f"space:\n{indented}")
    faults_of(read_recipe, content, ("bad.yaml:21:22: space.perturb.trials_per_type: must be at least 1 (got 0); nearest 1",))


@pytest.mark.parametrize("root", ["~/pictures", "$PICTURES", "${HOME}/pictures"])
def test_a_folder_in_a_recipe_may_be_named_by_the_users_home_or_a_variable(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PICTURES", str(tmp_path / "pictures"))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"name: mine\ndata: {{name: folder, root: '{root}'}}\ntrain: {{epochs: 1, learning_rate: 0.1}}\n")
    assert read_training(recipe).data.root == str(tmp_path / "pictures")


def test_a_space_file_is_looked_for_beside_the_recipe_that_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "job.yaml").write_text(RECIPE)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert read_recipe(Path("..") / "job.yaml").space == read_space(folder / "tiny.yaml")


@pytest.mark.parametrize(
    ("text", "number"), [("1e-4", 1e-4), ("1E-4", 1e-4), ("1.e-4", 1e-4), (".5", 0.5), ("+1", 1.0), ("010", 10.0), ("1e2", 100.0)]
)
def test_a_number_reads_as_people_mean_it(text: str, number: float) -> None:
    Path("job.yaml").write_text(changed(RECIPE, "learning_rate: 0.1", f"learning_rate: {text}"))
    assert read_recipe("job.yaml").distill.learning_rate == number


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "y", "2020-01-01", "1_000", "0x10"])
def test_a_word_that_yaml_1_1_would_convert_reads_as_text(word: str) -> None:
    Path("net.yaml").write_text(changed(NETWORK, "name: small", f"name: {word}"))
    assert read_network("net.yaml").name == word


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbf" + NETWORK.encode(), NETWORK.replace("\n", "\r\n").encode()], ids=["BOM", "CRLF"]
)
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(content: bytes) -> None:
    Path("net.yaml").write_bytes(content)
    Path("plain.yaml").write_text(NETWORK)
    assert read_network("net.yaml").model_dump() == read_network("plain.yaml").model_dump()


def test_the_examples_that_the_faults_are_planted_in_are_without_fault() -> None:
    for name, text in (("net", NETWORK), ("space", SPACE), ("job", RECIPE)):
        Path(f"{name}.yaml").write_text(text)
    assert isinstance(read_any("net.yaml"), Network)
    assert isinstance(read_any("space.yaml"), SearchSpace)
    assert isinstance(read_any("job.yaml"), Recipe)


def test_an_empty_list_of_super_blocks_is_refused_as_the_file_has_it() -> None:
    start, end = NETWORK.index("superblocks:"), NETWORK.index("head:")
    content = NETWORK[:start] + "superblocks: []\n" + NETWORK[end:]
    faults_of(read_network, content, ("bad.yaml:4:14: superblocks: must have at least one entry (got [])",))


def test_a_grid_that_is_no_multiple_of_8_is_refused_in_the_words_of_the_other_laws() -> None:
    Path("bad.yaml").write_text(changed(SPACE, "multiple_of: 16", "multiple_of: 12"))
    with pytest.raises(SpecError, match=r"^bad\.yaml:20:23: widths\.multiple_of: must be a multiple of 8 \(got 12\)"):
        read_space("bad.yaml")


@pytest.mark.parametrize(("old", "field"), [("width: 64", "superblocks[1].width"), ("ratio: 0.25", "superblocks[1].ratio")])
def test_a_number_of_thousands_of_digits_is_refused_with_its_place(old: str, field: str) -> None:
    Path("bad.yaml").write_text(changed(NETWORK, old, f"{old.split()[0]} {'9' * 5000}"))
    with pytest.raises(SpecError, match=rf"^bad\.yaml:6:\d+: {re.escape(field)}: "):
        read_network("bad.yaml")


def test_an_infinite_budget_is_one_fault_and_not_two() -> None:
    fault = f"bad.yaml:7:20: select.budgets[0]: {RULE} (got inf)"
    faults_of(read_recipe, changed(RECIPE, "0.8x", "1e999"), (fault,))


def test_a_tab_in_a_comment_is_not_blamed_for_another_fault_of_its_line() -> None:
    Path("bad.yaml").write_text(changed(NETWORK, "head: {width: 64}", "head: {width: 64,,} # a\tb"))
    with pytest.raises(SpecError, match=r"^bad\.yaml:8:18: must be YAML: "):
        read_network("bad.yaml")


@pytest.mark.parametrize("name", shipped_files("recipes"))
def test_every_shipped_recipe_reads_under_its_own_name(name: str) -> None:
    assert read_recipe(name).name == name
    assert read_any(shipped_files("recipes")[name]) == read_recipe(name)


@pytest.mark.parametrize("name", shipped_files("search_spaces"))
def test_every_shipped_space_reads_under_its_own_name(name: str) -> None:
    assert read_space(name).name == name
    assert read_any(shipped_files("search_spaces")[name]) == read_space(name)


@pytest.mark.parametrize("name", shipped_files("search_spaces/networks"))
def test_every_shipped_network_reads_under_its_own_name(name: str) -> None:
    assert read_network(name).name == name
    assert read_any(name) == read_network(name)


def test_the_shipped_files_are_found() -> None:
    assert {"digits", "cifar10", "genet-imagenet"} <= set(shipped_files("recipes"))
    assert {"digits", "cifar10", "masternet"} <= set(shipped_files("search_spaces"))
    assert len(shipped_files("search_spaces/networks")) == 24


def test_the_templates_read_once_their_names_are_filled_in() -> None:
    templates = shipped_files("templates")
    for name, kept in (("recipe", "mine"), ("space", "mine-space")):
        Path(f"{kept}.yaml").write_text(templates[name].read_text().replace("NAME", "mine"))
    assert read_recipe("mine.yaml").space == read_space("mine-space.yaml")


PLACES = {
    "latency": "measure",
    "networks": "measure",
    "candidates": "select",
    "structures": "select",
    "joint": "distill",
    "joint_fraction": "distill",
}


@pytest.mark.parametrize("old", RENAMED)
def test_a_key_of_an_earlier_version_is_refused_with_its_new_name_where_it_stood_and_nowhere_else(
    tmp_path: Path, old: str
) -> None:
    law = f"{old}: is not a key here; it is called {RENAMED[old]} now"
    file = tmp_path / "mine.yaml"
    if old == "samples":
        file.write_text(changed(SPACE, "trials_per_type: 2", "samples: 2"))
        with pytest.raises(SpecError, match=f"perturb.{law}"):
            read_space(file)
    else:
        place = PLACES.get(old, "train")
        file.write_text(f"name: mine\nspace: digits\n{place}: {{{old}: 1}}\n")
        with pytest.raises(SpecError, match=f"{place}.{law}"):
            read_recipe(file)
    file.write_text(f"name: mine\nspace: digits\ndata: {{{old}: 1}}\n")
    with pytest.raises(SpecError, match=f"data.{old}: is not a key here") as caught:
        read_recipe(file)
    assert "is called" not in str(caught.value)


def test_the_recipe_in_a_run_folder_of_an_earlier_version_is_read_by_the_new_names_of_its_keys(tmp_path: Path) -> None:
    recipe = read_recipe("digits")
    written = to_yaml(recipe).replace("paired_fraction", "joint_fraction").replace("calibration_networks", "networks")
    (tmp_path / "recipe.yaml").write_text(written)
    assert read_kept_recipe(tmp_path / "recipe.yaml") == recipe


# Designs that compete to be the MasterNet

MINE = "@32x3 | Conv k3 c8 s2 | XX k3 c16 s2 d1 | 10"
DEEP = f"@64x3 | Conv k3 c8 s2 | {'XX k3 c16 s2 d1 | ' * 4}7"


def space_with(folder: Path, masternets: str, classes: int = 10) -> Path:
    (folder / "wide.yaml").write_text(NETWORK.replace("name: small", "name: wide").replace("classes: 10", f"classes: {classes}"))
    (folder / "space.yaml").write_text(changed(SPACE, "perturb:", f"masternets: {masternets}\nperturb:"))
    return folder / "space.yaml"


def test_masternets_are_groups_notations_files_and_folders_beside_the_space(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "network.yaml").write_text(NETWORK)
    space = read_space(space_with(tmp_path, f'[known, patterns, wide.yaml, folder, "{MINE}"]'))
    assert space.masternets is not None
    *groups, wide, small, mine = space.masternets
    assert groups == ["known", "patterns"]
    assert isinstance(wide, Network) and isinstance(small, Network) and isinstance(mine, Network)  # noqa: PT018
    assert (wide.name, small.name, str(mine)) == ("wide", "small", MINE)
    assert mine.name.startswith("design-")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text((shipped_files("recipes")["digits"]).read_text().replace("space: digits", "space: space.yaml"))
    assert read_recipe(recipe).space.masternets == space.masternets
    (tmp_path / "again.yaml").write_text(to_yaml(space))
    (tmp_path / "wide.yaml").unlink()  # what is read is kept, wherever the files are by then
    assert read_space(tmp_path / "again.yaml").model_dump() == space.model_dump()


def test_without_masternets_a_space_is_written_as_before(tmp_path: Path) -> None:
    assert "masternets" not in to_yaml(read_space("digits"))


@pytest.mark.parametrize(
    ("masternets", "law"),
    [
        ("[]", r"masternets: must have at least one entry"),
        ("known", r"masternets: must be a list"),
        ("[knwon]", r"masternets\[0\]: must be known, patterns, a notation, .* \(got 'knwon'\); nearest known"),
        ("[known, nowhere.yaml]", r"masternets\[1\]: must be known, patterns, a notation, or the file or folder of a network"),
        ("[known, timm:resnet10t]", r"masternets\[1\]: must be known, patterns"),
        (
            f'["{MINE.replace("x3", "x1")}"]',
            r"masternets\[0\]: must have 3 channels and .*, not 1 and 10 \(got 'design-",
        ),
        (f'["{MINE.replace("| 10", "| 7")}"]', r"masternets\[0\]: must have .*, not 3 and 7 \(got 'design-"),
        (
            f'["{DEEP}"]',
            r"must have .*, not 3 and 7 [^\n]*\n.*must have a total stride of at most 24 pixels, not 32",
        ),
        (f'["{MINE.replace("XX k3", "XX k4")}"]', r"masternets\[0\]: XX k4 c16 s2 d1: "),
        ('["@32x3 | Conv k3 c8 s2"]', r"masternets\[0\]: a notation must have at least 4 entries"),
        (f'["{MINE.replace("| XX", "| XX k3 c8 s2 d1" * 3 + "| XX")}"]', r"must have a total stride of at most 24 pixels, not"),
        ("[other]", r"masternets\[0\]: got other, which other code builds, expected a network of super-blocks"),
    ],
)
def test_a_fault_among_the_masternets_is_told_where_it_stands(tmp_path: Path, masternets: str, law: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "network.yaml").write_text("source: timm:x\ninput: {channels: 3, classes: 10, resolution: 32}\n")
    with pytest.raises(SpecError, match=rf"space\.yaml:\d+:\d+: .*{law}"):
        read_space(space_with(tmp_path, masternets))


def test_all_faults_among_the_masternets_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        read_space(space_with(Path(), f'[knwon, wide.yaml, nowhere, "{MINE.replace("x3", "x1")}"]', classes=7))
    assert [fault.partition(": must")[0] for fault in caught.value.faults] == [
        "space.yaml:13:14: masternets[0]",
        "space.yaml:13:32: masternets[2]",
        "space.yaml:13:41: masternets[3]",
        "wide.yaml:1:1: masternets[1]",
    ]


def test_a_fault_within_a_network_of_the_masternets_names_its_own_file(tmp_path: Path) -> None:
    file = space_with(tmp_path, "[wide.yaml]", classes=7)
    (tmp_path / "wide.yaml").write_text((tmp_path / "wide.yaml").read_text().replace("width: 48", "width: 50"))
    with pytest.raises(SpecError, match=r"wide\.yaml:5:\d+: masternets\[0\]\.superblocks\[0\]\.width: must be a multiple of 8"):
        read_space(file)


def test_a_masternet_from_a_folder_and_a_tournament_exclude_each_other(tmp_path: Path) -> None:
    space_with(tmp_path, "[known]")
    digits = shipped_files("recipes")["digits"].read_text().replace("space: digits", "space: space.yaml")
    (tmp_path / "mine.yaml").write_text(re.sub(r"master: .*", "master: {from: trained}", digits))
    with pytest.raises(SpecError, match=r"master: must be a training, as the space's masternets compete"):
        read_recipe(tmp_path / "mine.yaml")
