"""What travels to a GPU without a network and back: wheels, the commit, and an archive within its limit."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from gpu.archive import DamagedArchiveError, pack, unpack
from gpu.checks import files_with_gpu_tests
from gpu.supplies import commit_of, fits, install_wheels

ROOT = Path(__file__).parents[2]
HERE = sys.version_info[:2]


@pytest.mark.parametrize(
    ("wheel", "fitting"),
    [
        ("pydantic-2.12.0-py3-none-any.whl", True),
        ("six-1.16.0-py2.py3-none-any.whl", True),
        ("pydantic_core-2.41.1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("pydantic_core-2.41.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", False),
        ("safetensors-0.5.0-cp38-abi3-manylinux_2_17_x86_64.whl", True),
        ("later-1.0-cp313-abi3-manylinux_2_17_x86_64.whl", False),
        ("old-1.0-py2-none-any.whl", False),
        ("built-1.0-1-py3-none-any.whl", True),
        ("nonsense.whl", False),
    ],
)
def test_a_wheel_fits_the_python_that_its_name_says(wheel: str, fitting: bool) -> None:
    assert fits(wheel, (3, 12)) is fitting


def wheel(folder: Path, name: str, tag: str) -> None:
    facts = {
        f"{name}.py": "WORD = 'here'\n",
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{name}-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{name}-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as file:
        for path, text in facts.items():
            file.writestr(path, text)


def test_wheels_are_installed_into_a_folder_and_one_of_another_python_is_named_in_a_line(tmp_path: Path) -> None:
    wheel(tmp_path, "fitting", "py3-none-any")
    wheel(tmp_path, "foreign", "cp27-cp27m-linux_x86_64")
    said = install_wheels(tmp_path, tmp_path / "site")
    assert said == [
        f"foreign-1.0-cp27-cp27m-linux_x86_64.whl: skipped, for it is not for this Python {HERE[0]}.{HERE[1]}; "
        f"pip download --python-version {HERE[0]}.{HERE[1]} fetches one that is"
    ]
    assert (tmp_path / "site" / "fitting.py").exists()
    assert not (tmp_path / "site" / "foreign.py").exists()


def test_a_wheel_that_is_damaged_is_told_in_a_line_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken-1.0-py3-none-any.whl").write_bytes(b"no zip")
    (said,) = install_wheels(tmp_path, tmp_path / "site")
    assert said.startswith("installing 1 wheels failed: ERROR: ")
    assert "broken" in said


def test_the_commit_is_that_of_the_variable_of_the_file_or_of_git_and_else_unknown(tmp_path: Path) -> None:
    supplies, checkout = tmp_path / "supplies", tmp_path / "checkout"
    supplies.mkdir()
    checkout.mkdir()
    assert commit_of(checkout, None, {}) == "n/a"
    assert commit_of(checkout, supplies, {}) == "n/a"
    (supplies / "COMMIT").write_text("0123abc\n")
    assert commit_of(checkout, supplies, {}) == "0123abc"
    assert commit_of(checkout, supplies, {"GENET_COMMIT": "fedcba9"}) == "fedcba9"
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@t"]
    (checkout / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert commit_of(checkout, supplies, {}) == "0123abc"
    (supplies / "COMMIT").unlink()
    assert commit_of(checkout, supplies, {}) == head
    (checkout / "file").write_text("two")
    assert commit_of(checkout, supplies, {}) == f"{head} with changes"


def test_an_archive_leaves_out_checkpoints_locks_and_the_largest_files_beyond_its_limit(tmp_path: Path) -> None:
    results = tmp_path / "results"
    contents = {
        "gpu/evidence/small.json": b"{}",
        "gpu/evidence/large.bin.json": os.urandom(200_000),
        "gpu/evidence/larger.json": os.urandom(300_000),
        "gpu/evidence/run/master.abc.checkpoint": b"c",
        "gpu/evidence/run/master.abc.checkpoint.other": b"c",
        "gpu/evidence/run/master.safetensors": b"w",
        "gpu/evidence/run/.lock": b"",
        "gpu/evidence/run/.genet-half.json": b"half",
    }
    for name, data in contents.items():
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_bytes(data)
    archive = tmp_path / "deep" / "archive.tar.gz"
    assert pack(results, archive, limit=250_000) == ["gpu/evidence/larger.json: 300000 bytes"]
    assert archive.stat().st_size <= 250_000
    assert [file.name for file in archive.parent.iterdir()] == ["archive.tar.gz"]
    unpack(archive, tmp_path / "there")
    found = {str(file.relative_to(tmp_path / "there")) for file in (tmp_path / "there").rglob("*") if file.is_file()}
    assert found == {"gpu/evidence/small.json", "gpu/evidence/large.bin.json", "left-out.txt"}
    assert "larger.json" in (tmp_path / "there" / "left-out.txt").read_text()


def test_a_damaged_archive_and_one_that_reaches_outside_are_refused_in_a_line(tmp_path: Path) -> None:
    torn, outside = tmp_path / "torn.tar.gz", tmp_path / "outside.tar.gz"
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "file").write_bytes(os.urandom(100_000))
    pack(tmp_path / "results", torn)
    torn.write_bytes(torn.read_bytes()[:50_000])
    with tarfile.open(outside, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())
    for archive in (torn, outside):
        with pytest.raises(DamagedArchiveError, match=f"{archive.name}: reading the archive failed"):
            unpack(archive, tmp_path / "into")
    assert not (tmp_path / "escaped").exists()


def test_every_test_marked_for_the_gpu_is_among_the_files_named() -> None:
    named = {str(file) for file in files_with_gpu_tests()}
    marked = {
        str(file.relative_to(ROOT)) for file in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in file.read_text()
    }
    assert {"tests/test_device.py", "tests/test_on_a_gpu.py", "tests/contracts/test_runtime_contract.py"} <= named
    assert marked - {str(Path(__file__).relative_to(ROOT))} == named - {str(Path(__file__).relative_to(ROOT))}


def test_a_folder_that_is_not_there_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path)}
    command = [str(ROOT / "benchmarks" / "gpu.sh"), "evidence", str(tmp_path / "missing")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "expected a folder; leave it out to go without" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_archive_of_the_folder_that_is_given_comes_before_one_where_the_next_is_to_be_written(tmp_path: Path) -> None:
    from gpu.__main__ import restore_results
    from gpu.archive import pack

    for name in ("given", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / f"results-{name}").mkdir()
        (tmp_path / f"results-{name}" / "told.txt").write_text(name)
        pack(tmp_path / f"results-{name}", tmp_path / name / "archive.tar.gz")
    archives = [tmp_path / name / "archive.tar.gz" for name in ("given", "out")]
    for expected in ("given", "out"):
        (tmp_path / f"into-{expected}").mkdir()
        restore_results(archives, tmp_path / f"into-{expected}")
        assert (tmp_path / f"into-{expected}" / "told.txt").read_text() == expected
        archives[0].unlink(missing_ok=True)
