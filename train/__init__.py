"""Training: a loop for all recipes, and what each recipe puts into it."""

from __future__ import annotations

from importlib.util import find_spec

from vidx.errors import InputError


def check_installed() -> None:
    """Raises InputError where the libraries of the extra `train` are missing."""
    for library in ("accelerate", "tensorboard"):
        if not find_spec(library):
            raise InputError(f"training needs {library}", hint="pip install 'vidx[train]'")
