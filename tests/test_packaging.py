"""What is in the repository is what gets installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# Packages, and those within them.
FOLDERS = [path.parent for depth in ("*", "*/*") for path in sorted(ROOT.glob(f"{depth}/__init__.py"))]
FOLDERS = [folder for folder in FOLDERS if folder.parent == ROOT or folder.parent in FOLDERS]


def test_every_folder_of_code_is_listed_as_a_package() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert listed == {"vidx"} | {".".join(("vidx", *folder.relative_to(ROOT).parts)) for folder in FOLDERS}


def test_the_lock_file_pins_every_dependency_with_hashes_and_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.M)}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9_.-]+", line)[0]).lower() for line in wanted}
    assert names <= pinned
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index-url|--extra-index-url|--find-links)", text, re.M)
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[A-Za-z0-9])", text.strip()))


@pytest.mark.slow
def test_a_wheel_holds_all_code_and_data_and_its_command_runs(tmp_path: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "tree" / name)
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(tmp_path / "tree"),
    ]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("vidx/")}
        archive.extractall(tmp_path / "installed")
    code = set(ROOT.glob("*.py")) | {path for folder in FOLDERS for path in folder.glob("*.py")}
    data = {ROOT / "py.typed", *(path for path in (ROOT / "encoders" / "_data").rglob("*") if path.is_file())}
    assert held == {f"vidx/{path.relative_to(ROOT)}" for path in code | data}
    run = "import sys; sys.path.insert(0, sys.argv.pop(1)); import vidx.cli; print(vidx.__file__); vidx.cli.main()"
    printed = subprocess.run(
        [sys.executable, "-S", "-c", _with_site_packages(run), str(tmp_path / "installed"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout
    assert str(tmp_path) in printed.splitlines()[0]
    assert "index" in printed
    assert "search" in printed


def _with_site_packages(code: str) -> str:
    """-S keeps out the editable install; the libraries themselves are put back by path."""
    folders = [path for path in sys.path if path.endswith("site-packages")]
    return f"import sys; sys.path += {folders!r}; {code}"
