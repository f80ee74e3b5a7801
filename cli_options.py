"""Options that several commands share, and checks of their values."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

store_option = click.option(
    "--store",
    "store_path",
    type=click.Path(path_type=Path),
    help="Folder of the store.  [default: $VIDX_STORE, else the user's data folder]",
)


def seconds(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    """A length of time that makes sense. Raises BadParameter."""
    if value is not None and not 0.1 <= value <= 86400:
        raise click.BadParameter("give seconds from 0.1 to 86400")
    return value


def gibibytes(_context: click.Context, _parameter: click.Parameter, value: float) -> int:
    """From GB to bytes."""
    return round(value * 2**30)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--format` and `-o`, for commands that give rows or hits."""
    out = click.option("-o", "out", type=click.Path(path_type=Path), help="Write to this file, once it is whole.")
    name = click.option(
        "--format", "format_name", help="table, json, csv or parquet.  [default: as FILE of -o ends, else table]"
    )
    return name(out(command))


def print_progress(have: int, total: int) -> None:
    """Bytes fetched, of how many (0: unknown), on one line of standard error that replaces itself on a terminal."""
    if sys.stderr.isatty():
        share = f" of {total / 1e6:.0f}" if total else ""
        click.echo(f"\r{have / 1e6:.0f}{share} MB", nl=have == total, err=True)
