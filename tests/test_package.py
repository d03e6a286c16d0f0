"""The project as others get it: a wheel, away from the clone."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_wheel_finds_its_recipes_by_name_away_from_the_clone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("genet_nas-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import genet; assert genet.__file__.startswith(sys.path[0])\n"
        "from genet.cli.main import main\n"
        "sys.exit(main(['check', 'digits']) or main(['check', 'genet-light']) or main(['init', 'mine.yaml']))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert (tmp_path / "mine-space.yaml").exists()
    assert (site / "genet" / "report" / "page.html").exists()


def test_no_file_needs_a_path_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".yaml", ".toml", ".html", ".json"):
            text = path.read_text()
            assert "/ho" + "me/" not in text, name
            assert "/ro" + "ot/" not in text, name
