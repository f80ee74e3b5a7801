"""Imports go one way through the house: no module reaches up, sideways across a seam, or round in a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("decoders", "encoders", "export", "indexer", "learn", "schema", "search", "train", "train/shapes", "vectors")

# What each part may import of ours, beside itself.
GROUND = {"errors", "config", "plugins"}
COMMANDS = {
    "cli_dupes",
    "cli_eval",
    "cli_index",
    "cli_search",
    "cli_encoders",
    "cli_tag",
    "cli_teach",
    "cli_train",
    "cli_train_classifiers",
    "cli_train_encoders",
    "cli_train_options",
    "cli_prune",
    "cli_config",
}
ALLOWED = {
    "__init__": {"api"},
    "api": {"schema", "indexer", "settings", "search", *GROUND},
    "errors": set(),
    "config": {"errors"},
    "plugins": {"errors"},
    "schema": {"errors"},
    "pixels": {"schema"},
    "decoders": {"schema", "pixels", *GROUND},
    "encoders": {"schema", "pixels", *GROUND},
    "vectors": {"schema", *GROUND},
    "export": {"schema", "decoders", *GROUND},  # decoders: cuts only, see below
    "indexer": {"schema", "decoders", "encoders", "__init__", *GROUND},
    "learn": {"schema", "search", "encoders", "export", "indexer", "pixels", *GROUND},
    "search": {"schema", "encoders", "vectors", "indexer", "__init__", *GROUND},
    "train": {"schema", "encoders", "indexer", "learn", "pixels", *GROUND},
    "settings": {"schema", "indexer", "config", "errors"},
    "console": {"export", "indexer", "config"},
    "cli_options": set(),
    "cli_encoders": {"cli_options", "schema", "encoders", *GROUND},
    "cli_config": {"cli_options", "schema", "indexer", "settings", "config"},
    "cli_index": {"cli_options", "settings", "schema", "encoders", "indexer", "search", "console", "export", *GROUND},
    "cli_dupes": {"cli_options", "schema", "export", "search", *GROUND},
    "cli_eval": {"cli_options", "encoders", "export", "learn", "config"},
    "cli_prune": {"cli_options", "schema", "export", "indexer", "search", *GROUND},
    "cli_search": {"cli_options", "schema", "export", "search", *GROUND},
    "cli_tag": {"cli_options", "schema", "export", "search", *GROUND},
    "cli_teach": {"cli_options", "schema", "export", "learn", *GROUND},
    "cli_train": {"cli_train_classifiers", "cli_train_encoders", "cli_train_options", "export", "train"},
    "cli_train_classifiers": {"cli_train_options", "export", "train"},
    "cli_train_encoders": {"cli_train_options", "export", "train"},
    "cli_train_options": {"train"},
    "cli": {*COMMANDS, "cli_options", "schema", "export", "search", "__init__", *GROUND},
}
# The stages of indexing, in the order data flow through them; none imports a later one.
STAGES = [
    *(
        "patterns",
        "walk",
        "fingerprint",
        "jobs",
        "probe",
        "plan",
        "sampling",
        "shots",
        "answer_pipe",
        "child",
        "process",
        "answers",
        "split",
    ),
    *("worker", "decode", "still", "encode", "attempts", "vanished", "commit", "run", "frames", "prune", "watch"),
]
# Run in the process that cuts, where a file may do what it likes; only these of export decode.
IN_CUT_PROCESS = {"_cut_child", "_cut_copy", "_cut_encode", "_cut_sound", "_cut_source"}
# Third parties that a part must do without.
FORBIDDEN = {
    "schema": {"torch", "faiss", "av", "timm", "transformers", "sklearn"},
    "encoders": {"av", "faiss", "duckdb", "deltalake"},
    "search": {"av", "torch", "timm", "transformers"},
    "export": {"torch", "faiss", "duckdb", "deltalake", "av"},
    "vectors": {"torch", "duckdb", "deltalake", "av"},
}


def sources() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in (ROOT / folder).glob("*.py"))])


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def part_of(module: str) -> str:
    return module.split(".")[0]


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever it stands; `vidx.` is cut off ours."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    """Modules of ours that a file imports, by the name of their file."""
    known = {module_name(source) for source in sources()}
    result = set()
    for name in imports(path):
        if name == "vidx" or name.startswith("vidx."):
            parts = name.split(".")[1:]
            candidates = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
            candidates = [c if c in known else f"{c}.__init__" for c in candidates]
            result.add(next((c for c in candidates if c in known), "__init__"))
    return result


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_a_part_imports_only_what_lies_below_it(path: Path) -> None:
    part = part_of(module_name(path))
    reached = {part_of(module) for module in ours(path)} - {part}
    assert reached <= ALLOWED[part], f"{module_name(path)} reaches for {sorted(reached - ALLOWED[part])}"


def test_search_reaches_the_indexer_for_frames_of_single_clips_only() -> None:
    modules = {module for path in (ROOT / "search").glob("*.py") for module in ours(path)}
    assert {module for module in modules if part_of(module) == "indexer"} == {"indexer.frames"}


def test_only_the_process_that_cuts_decodes() -> None:
    for path in (ROOT / "export").glob("*.py"):
        reached = {part_of(module) for module in ours(path)} | {module.split(".")[-1] for module in ours(path)}
        if path.stem not in IN_CUT_PROCESS:
            assert not reached & {"decoders", *IN_CUT_PROCESS}, path


def test_no_stage_of_indexing_imports_a_later_one() -> None:
    assert set(STAGES) == {path.stem for path in (ROOT / "indexer").glob("*.py")} - {"__init__"}
    for path in (ROOT / "indexer").glob("*.py"):
        later = STAGES[STAGES.index(path.stem) + 1 :] if path.stem in STAGES else STAGES
        reached = {module.split(".")[1] for module in ours(path) if part_of(module) == "indexer"}
        assert not reached & set(later), f"{path.stem} imports {sorted(reached & set(later))}"


def test_there_is_no_circle_of_imports() -> None:
    graph = {module_name(path): ours(path) - {module_name(path)} for path in sources()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


@pytest.mark.parametrize("part", sorted(FORBIDDEN))
def test_a_part_does_without_the_libraries_of_others(part: str) -> None:
    for path in (ROOT / part).glob("*.py"):
        used = {name.split(".")[0] for name in imports(path)}
        allowed_here = {"torch", "timm"} if part == "encoders" else set()
        if path.stem in IN_CUT_PROCESS:
            allowed_here = {"av"}
        assert not used & (FORBIDDEN[part] - allowed_here), path


def test_every_folder_of_code_is_held_to_the_rules() -> None:
    packages = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/__init__.py")}
    inner = {
        path.parent.relative_to(ROOT).as_posix() for name in packages for path in ROOT.glob(f"{name}/*/__init__.py")
    }
    assert packages | inner == set(FOLDERS)
