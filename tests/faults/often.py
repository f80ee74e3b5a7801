"""`vidx` with a commit every so many seconds, for which the command line has no option.

python -m vidx.tests.faults.often SECONDS index FOLDER ...
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name=name)


def without_pandas() -> None:
    """Be as where vidx is installed alone; DuckDB would load it, which takes longer than a short run."""
    sys.meta_path.insert(0, _NoPandas())


def commit_every(seconds: float) -> None:
    """Change the default of this process."""
    from vidx.config import IndexOptions

    defaults = IndexOptions.__init__.__kwdefaults__
    assert "commit_s" in defaults
    defaults["commit_s"] = seconds


def often(seconds: float, command: list[str]) -> list[str]:
    """A `vidx` command as one that commits every `seconds`."""
    return [sys.executable, "-m", "vidx.tests.faults.often", str(seconds), *command[1:]]


if __name__ == "__main__":
    from vidx.cli import main

    without_pandas()
    commit_every(float(sys.argv.pop(1)))
    main()
