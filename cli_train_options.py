"""What all commands take that fine-tune to the classes of a folder of videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_path = click.Path(path_type=Path)


def fine_tuning(epochs: int, rate: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Arguments ROOT and FOLDER, and the options of data, length and rate; a command may add its own."""
    options = [
        click.argument("root", type=_path),
        click.argument("folder", type=click.Path(path_type=Path, file_okay=False)),
        click.option("--lists", type=_path, help="The folder of UCF101's split lists.  [default: below ROOT]"),
        click.option(
            "--split", type=click.Choice(["1", "2", "3"]), default="1", show_default=True, help="Of the lists."
        ),
        click.option("--shots", type=click.IntRange(1), help="Train on so many videos of each class.  [default: all]"),
        click.option("--epochs", type=click.IntRange(1), default=epochs, show_default=True),
        click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Videos at once."),
        click.option(
            "--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Batches that make a step."
        ),
        click.option(
            "--patience",
            type=click.IntRange(1),
            help="Stop after so many epochs without better validation.  [default: never]",
        ),
        click.option(
            "--learning-rate", type=click.FloatRange(0, min_open=True), default=rate, show_default=True, metavar="RATE"
        ),
        click.option(
            "--precision",
            type=click.Choice(["no", "fp16", "bf16"]),
            default="no",
            show_default=True,
            help="Of training on a GPU: half precision takes half the memory.",
        ),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
        click.option(
            "--threads",
            type=click.IntRange(1, 512),
            help="On CPU; with 1 a run gives the same digits again.  [default: all]",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object for each check, and one for the test."),
    ]

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def begin(threads: int | None) -> None:
    """Before a training: raises InputError where libraries are missing, and settles how many threads compute."""
    from vidx.train import check_installed

    check_installed()
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
