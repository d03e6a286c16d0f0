"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from genet.cli import main as cli
from genet.cli.parser import RENAMED
from genet.config.reader import shipped_files
from tests.fixtures.images import draw_images
from tests.fixtures.tiny import RECIPE, SPACE, write_recipe

GENET = [sys.executable, "-m", "genet"]
COMMANDS = [
    "run",
    "check",
    "import",
    "init",
    "profile",
    "master",
    "distill",
    "fit",
    "validate",
    "train",
    "eval",
    "export",
    "report",
    "select",
    "latency",
    "latency diff",
    "staircase",
    "align",
    "survey",
    "fold",
    "rank",
    "race",
    "filter",
]


def genet(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    return subprocess.run([*GENET, *arguments], capture_output=True, text=True, cwd=folder, check=False)


def faults(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines of a command that must fail with exit code 2, checked to hold no traceback."""
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert "Traceback" not in lines[0]
    return lines


def test_the_list_of_commands_is_frozen() -> None:
    text = genet("--help").stdout
    listed = [re.split(r"\s{2,}", line.strip())[0] for line in text.splitlines() if line.startswith("    ") and line[4] != " "]
    assert sorted(listed) == sorted(COMMANDS)
    assert max(map(len, text.splitlines())) <= 80


def test_the_list_of_commands_is_in_groups_that_begin_with_the_first_thing_to_do() -> None:
    groups = re.findall(r"^(\w.*):\n    (\w+)", genet("--help").stdout, re.MULTILINE)
    assert groups == [
        ("design a network", "init"),
        ("measure", "latency"),
        ("improve a network you have", "import"),
        ("studies", "survey"),
    ]


def test_help_is_quick_because_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io\n"
        "from genet.cli import main as cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): cli.main(['--help'])\n"
        "heavy = {'torch', 'timm', 'numpy', 'pydantic', 'yaml', 'rich', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_importing_genet_loads_neither_torch_nor_timm() -> None:
    code = "import sys, genet; sys.exit(bool({'torch', 'timm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_json_and_debug(command: str) -> None:
    text = genet(*command.split(), "--help").stdout
    assert "--json" in text
    assert "--debug" in text


@pytest.mark.parametrize("folder", ["recipes", "search_spaces", "search_spaces/networks"])
def test_everything_shipped_passes_check(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, path in shipped_files(folder).items():
        assert cli.main(["check", str(path), "--json"]) == 0
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert last["name"] == name
        assert {"notation", "parameters", "macs", "size"} <= set(last)


@pytest.mark.parametrize(("name", "size"), [("genet-light", 192), ("genet-normal", 192), ("genet-large", 256)])
def test_check_counts_a_network_at_its_own_resolution(name: str, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["size"] == size


def test_check_says_every_fault_on_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(tmp_path)
    path.write_text(path.read_text().replace("epochs: 3", "epochs: 0").replace("measure_top_k", "measure_top"))
    first, second = faults(capsys, "check", str(path))
    assert first.startswith(f"{path}:6:18: master.epochs: must be at least 1 (got 0)")
    assert second.startswith(f"{path}:8:37: select.measure_top: is not a key here; did you mean measure_top_k?")


@pytest.mark.parametrize("training_alone", [False, True])
@pytest.mark.parametrize(
    ("data", "augment", "said"),
    [
        ("", "augment: {policy: nonsense}", "augment.policy: got 'nonsense', expected a policy by timm's name"),
        ("loading: device", "augment: {policy: original}", "augment: got policy original for images kept on the device"),
        ("loading: device", "augment: {scale: [0.1, 1]}", "augment: got scale 0.1 to 1 for images kept on the device"),
    ],
)
def test_check_refuses_what_a_training_would_refuse_of_its_images(
    training_alone: bool, data: str, augment: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.yaml"
    draw_images(tmp_path / "images", dict.fromkeys("abcdefghij", 2), test=1)
    images = f"data: {{name: folder, root: images, {data}}}"
    if training_alone:
        path.write_text(f"name: tiny\n{images}\n{augment}\ntrain: {{epochs: 1, batch: 8, learning_rate: 0.1}}\n")
    else:
        recipe = RECIPE.replace("data: {name: digits, nas_validation: 0.25}", f"{images}\n{augment}")
        write_recipe(tmp_path, recipe, SPACE.replace("channels: 1", "channels: 3"))
    (line,) = faults(capsys, "check", str(path))
    assert line.startswith(said)
    path.write_text(path.read_text().replace(f"{augment}\n", "augment: {flip: true}\n"))
    assert cli.main(["check", str(path)]) == 0


def test_check_refuses_a_default_augmentation_that_images_on_the_device_cannot_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_images(tmp_path / "images", dict.fromkeys("abcdefghij", 2), test=1)
    path = write_recipe(
        tmp_path,
        RECIPE.replace("data: {name: digits,", "data: {name: folder, root: images, loading: device,"),
        SPACE.replace("resolutions: [16]", "resolutions: [96]"),
    )
    (line,) = faults(capsys, "check", str(path))
    assert line.startswith("data.loading: got device for images augmented by scale 0.08 to 1, color_jitter 0.4, flip by default")


def test_check_tells_of_an_estimate_which_budgets_are_probably_out_of_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path, RECIPE.replace("device: cpu", "device: estimate:v100"))
    assert cli.main(["check", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ": within reach, the network with the fewest MACs takes 0." in found["budget 2x"]
    assert ": probably out of reach, the network" in found["budget 0.000001ms/image"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("initt my.yaml", "initt is not a command; did you mean init?"),
        ("nonsense", "nonsense is not a command; genet --help lists them"),
        ("init my.yaml --budgett=5ms", "--budgett=5ms; did you mean --budget?"),
        ("run digits --remesure --new-rum", "--remesure --new-rum; did you mean --remeasure?; did you mean --new-run?"),
        ("init my.yaml --zzzzzz", "unrecognized arguments: --zzzzzz"),
    ],
)
def test_a_misspelt_command_or_option_is_told_the_nearest_one(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments.split())
    assert capsys.readouterr().err.rstrip().endswith(said)


def test_a_recipe_that_is_not_there_names_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = faults(capsys, "run", "digit")
    assert "digits" in line
    assert "did you mean digits?" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "tpu"], "--device must be auto, cpu, cuda, cuda:N or estimate:GPU (got 'tpu')"),
        (["--device", "estimate:v1000"], "did you mean v100"),
        (["--latency", "nowhere.jsonl"], "nowhere.jsonl does not exist, expected an evidence file such as RUN/latency.jsonl"),
        (["--device", "cuda:99"], "use "),
        (["--data", "nowhere"], ""),
    ],
)
def test_a_run_that_cannot_begin_leaves_nothing_behind(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = faults(capsys, "run", "cifar10", *arguments)
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_a_missing_gpu_is_said_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    (line,) = faults(capsys, "run", "digits", "--device", "cuda")
    assert "got none here; use --device cpu" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["profile", "master", "distill", "fit", "select", "train", "export", "report"])
def test_a_step_on_a_folder_that_is_no_run_changes_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = faults(capsys, command, str(tmp_path / "nowhere"))
    assert "expected a run folder" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("budget", ["0", "-1", "fast", "0x", "nan", "inf", "x"])
def test_a_budget_that_is_none_is_refused(budget: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = faults(capsys, "select", str(tmp_path), f"--budget={budget}")
    assert line.startswith("--budget must be milliseconds per batch such as 5ms or per image such as 0.2ms/image, or a multiple")


def test_debug_shows_the_traceback() -> None:
    result = genet("check", "nowhere.yaml", "--debug")
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_init_writes_a_recipe_and_a_space_that_pass_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "my.yaml"]) == 0
    assert cli.main(["check", "my.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["name"] == "my"
    (line,) = faults(capsys, "init", "my.yaml")
    assert line == "my.yaml exists already, expected a new file; name another"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my recipe.yaml", "my-recipe"),
        ('it\'s #1: "new".yaml', "it-s-1-new-"),
        ("1.yaml", "1"),
        ("true.yaml", "true"),
        ("null", "null"),
        ("#.yaml", "unnamed"),
        ("NAME of FILE.yaml", "NAME-of-FILE"),
        ("-a.yaml", "a"),
        (".yaml", "yaml"),
        ("$HOME/*/\u732b.json", "\u732b"),
        ("Ka\u0308fer.yaml", "K\u00e4fer"),
    ],
)
def test_whatever_init_names_check_takes_by_the_command_that_init_prints(
    file: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "--", file]) == 0
    genet_, check, typed, *_ = shlex.split(capsys.readouterr().out.split("then: ")[1])
    assert (genet_, check) == ("genet", "check")
    assert cli.main([check, typed, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["name"] == name
    assert Path(file).read_text().splitlines()[0] in (
        f"# genet run {shlex.quote(written)} --data FOLDER" for written in (Path(file).name, f"./{file}")
    )


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("a\nb.yaml", r"'a\nb.yaml': got characters that are not printable"),
        ("a\u00a0b.yaml", r"'a\xa0b.yaml': got characters that are not printable"),
        ("M\udcfcll.yaml", r"M\xfcll.yaml: got bytes that are not UTF-8"),
        ("", ". exists already"),
        ("/", "/ exists already"),
        (240 * "a", "a-space.yaml: cannot be written (File name too long)"),
        (300 * "a", "a: cannot be used (File name too long)"),
    ],
)
def test_a_name_that_no_recipe_can_have_is_one_line_and_leaves_nothing(
    file: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = faults(capsys, "init", file)
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_a_fault_is_one_line_whatever_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = faults(capsys, "check", "a\n\x1b[2Jb.yaml")
    assert line == r"a\n\x1b[2Jb.yaml: must be a file that exists; check the path"


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_after(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, RECIPE.replace("device: cpu", "device: estimate:v100"))

    def a_small_disk() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as on a full disk, the write fails instead of the process
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    command = [*GENET, "run", str(path), "--run", str(tmp_path / "run")]
    full = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=a_small_disk)
    assert full.returncode == 2
    assert "the disk is full" in full.stderr
    assert len(full.stderr.splitlines()) == 1
    after = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert after.returncode == 0, after.stderr
    assert json.loads(after.stdout.splitlines()[-1])["outcomes"]


@pytest.mark.slow
def test_output_cut_off_by_a_reader_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([*GENET, "check", "genet-light"], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_option_of_an_earlier_version_is_refused_with_its_new_name(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "digits", old, "1"])
    assert f"{old} is called {new} now" in capsys.readouterr().err


def test_genet_alone_prints_its_help() -> None:
    assert genet().stdout == genet("--help").stdout
