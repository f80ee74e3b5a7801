"""Options that several commands share, and checks of their values."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}

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


def duration(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    """Seconds from `30`, `30s`, `5m` or `1h`. Raises BadParameter."""
    number, unit = (value[:-1], value[-1]) if value[-1:] in _UNITS_S else (value, "s")
    try:
        length_s = float(number) * _UNITS_S[unit]
    except ValueError:
        length_s = math.nan
    if not 0 < length_s <= 86400:
        raise click.BadParameter("give a length of time up to a day, as 30s, 5m or 1h")
    return length_s


def instant(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    """A date or an instant as ISO 8601 has it; UTC where it names no zone. Raises BadParameter."""
    if value is None:
        return None
    try:
        given = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("give a date or an instant, as 2024-05-31 or 2024-05-31T18:30+02:00") from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def number(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    """What is a number. Raises BadParameter for NaN, which is in every range that click knows."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("give a number")
    return value


def gibibytes(_context: click.Context, _parameter: click.Parameter, value: float) -> int:
    """From GB to bytes. Raises BadParameter."""
    if math.isnan(value):
        raise click.BadParameter("give a number")
    return round(value * 2**30)


def output_options(formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--format` and `-o`, for commands that give rows or hits; `formats` names those of the command."""
    out = click.option("-o", "out", type=click.Path(path_type=Path), help="Write to this file, once it is whole.")
    name = click.option("--format", "format_name", help=f"{formats}.  [default: as FILE of -o ends, else table]")
    return lambda command: name(out(command))


def print_progress(have: int, total: int) -> None:
    """Bytes fetched, of how many (0: unknown), on one line of standard error that replaces itself on a terminal."""
    if sys.stderr.isatty():
        share = f" of {total / 1e6:.0f}" if total else ""
        click.echo(f"\r{have / 1e6:.0f}{share} MB", nl=have == total, err=True)
