"""The encoder that docs/how-to.md shows, installed as a third party's package is, works beside the built-in ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # runs the command several times

PAGE = Path(__file__).parents[1] / "docs" / "how-to.md"
COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder like site-packages with the module and the entry point that the page shows."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index("    # vidx_colour.py")
    code = textwrap.dedent(text[start : text.index("    # pyproject.toml", start)])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "vidx_colour.py").write_text(code)
    metadata = tmp_path / "site" / "vidx_colour-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vidx-colour\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[vidx.encoders]\ncolour = vidx_colour\n")
    assert '[project.entry-points."vidx.encoders"]\n    colour = "vidx_colour"' in text
    return tmp_path / "site"


def test_the_plug_in_of_the_page_indexes_and_searches_beside_others(
    installed: Path, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    def vidx(*arguments: Any) -> str:
        command = [Path(sys.executable).with_name("vidx"), *map(str, arguments)]
        run = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(installed)}, check=True
        )
        return run.stdout

    videos, store = tmp_path / "videos", tmp_path / "store"
    videos.mkdir()
    for name, colour in COLOURS.items():

        def draw(_: int, size: tuple[int, int], colour: tuple[int, int, int] = colour) -> np.ndarray:
            return np.full((size[1], size[0], 3), colour, np.uint8)

        make_video(videos / f"{name}.mp4", n_frames=20, draw=draw)
    assert "colour" in {encoder["name"] for encoder in json.loads(vidx("encoders", "--json"))["encoders"]}
    vidx("index", videos, "--store", store, "--encoder", "colour")
    for name in COLOURS:
        found = json.loads(vidx("search", name, "--store", store, "--encoder", "colour", "--format", "json"))
        assert found["hits"][0]["path"].endswith(f"{name}.mp4")
