"""One file is one choice, and a choice is loaded only when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vidx import plugins
from vidx.errors import UnknownChoice
from vidx.plugins import SEAMS, available, load

PACKAGE = Path(plugins.__file__).parent


@pytest.mark.parametrize("seam", SEAMS)
def test_the_choices_of_a_seam_are_the_files_in_its_folder(seam: str) -> None:
    files = {path.stem for path in (PACKAGE / seam).glob("*.py") if not path.name.startswith("_")}
    assert files
    assert available(seam) == sorted(files)


@pytest.mark.parametrize("seam", SEAMS)
def test_every_choice_loads_and_is_the_file_of_its_name(seam: str) -> None:
    for name in available(seam):
        module = load(seam, name)
        assert isinstance(module, ModuleType)
        assert module.__file__ == str(PACKAGE / seam / f"{name}.py")


def test_every_choice_keeps_the_contract_of_its_seam() -> None:
    assert all(hasattr(load("decoders", name), "open_video") for name in available("decoders"))
    families = [load("encoders", name) for name in available("encoders")]
    assert all(hasattr(family, "NAMES") for family in families)
    searchable = [family for family in families if any(not spec.classifies for spec in family.NAMES.values())]
    assert len(searchable) >= 5
    assert all(hasattr(family, "build") for family in searchable)
    assert all(hasattr(load("vectors", name), "build") for name in available("vectors"))
    formats = [load("export", name) for name in available("export")]
    abilities = ("to_text", "write", "to_file", "to_folder", "to_timeline", "cut")
    assert all(any(hasattr(module, part) for part in abilities) for module in formats)


def test_every_encoder_belongs_to_the_family_whose_file_names_it() -> None:
    for family in available("encoders"):
        for name, spec in load("encoders", family).NAMES.items():
            assert (spec.name, spec.family, spec.space.encoder) == (name, family, name)


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("name", ["nope", "", "_weights", "__init__", "os.path", "../cli", "a b", "data", "Flat"])
def test_an_unknown_choice_is_refused_with_the_known_ones(seam: str, name: str) -> None:
    with pytest.raises(UnknownChoice) as caught:
        load(seam, name)
    assert repr(name) in str(caught.value)
    assert caught.value.hint == f"choose from: {', '.join(available(seam))}"
    assert caught.value.exit_code == 2


def test_listing_choices_imports_none_of_them() -> None:
    code = f"""
import sys
from vidx.plugins import available
for seam in {SEAMS!r}:
    for name in available(seam):
        assert f"vidx.{{seam}}.{{name}}" not in sys.modules, name
assert not {{"av", "torch", "faiss", "PIL", "duckdb"}} & set(sys.modules), sorted(sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of somebody else's that brings an export format, as pip lays it out."""
    (tmp_path / "shout_format.py").write_text("def to_text(answer):\n    return answer.query.upper()\n")
    (tmp_path / "broken_format.py").write_text("import vidx_no_such_module\n")
    folder = tmp_path / "shout_format-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: shout-format\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[vidx.export]\nshout = shout_format\nbroken = broken_format\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_a_choice() -> None:
    assert available("export") == sorted(
        ["broken", "csv", "cut", "edl", "json", "m3u", "otio", "parquet", "sheet", "shout", "table", "webvtt"]
    )
    assert load("export", "shout").__name__ == "shout_format"
    assert "shout" not in available("vectors")
    with pytest.raises(UnknownChoice, match="shout"):
        load("vectors", "shout")


@pytest.mark.usefixtures("installed")
def test_a_choice_that_lacks_a_module_says_which() -> None:
    with pytest.raises(ModuleNotFoundError, match="vidx_no_such_module"):
        load("export", "broken")
