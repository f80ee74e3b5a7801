"""`vidx train videomae` and `vidx train movinet`: classifiers of one's own classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidx.cli_train_options import begin, fine_tuning
from vidx.export import shown

if TYPE_CHECKING:
    from vidx.train.trained_classifier import Tested


@click.command()
@fine_tuning(epochs=4, rate=5e-5)
@click.option(
    "--weights",
    default="videomae:MCG-NJU/videomae-base",
    show_default=True,
    metavar="NAME",
    help="To begin with: an id at Hugging Face whose files are here, a folder of such files, or a file in it.",
)
@click.option(
    "--mirror/--no-mirror", default=True, help="Learn from mirror images too; no, where left and right count."
)
def videomae(threads: int | None, as_json: bool, folder: Path, mirror: bool, **chosen: Any) -> None:
    """Fine-tune VideoMAE to the classes of ROOT, a folder for each, into FOLDER, with a report on test videos.

    Videos named as those of UCF101 are split by group. A run that was stopped goes on when the command is given again.
    """
    begin(threads)
    from vidx.train.classifier import Plan
    from vidx.train.videomae import train_videomae

    _tell(train_videomae(folder, Plan(**chosen), _teller(as_json), mirrors=mirror), as_json)


@click.command()
@fine_tuning(epochs=2, rate=1e-3)
@click.option(
    "--weights",
    default="movinet-a0-base",
    show_default=True,
    metavar="NAME",
    help="To begin with: one of `vidx encoders` whose file is here, or a file.",
)
@click.option(
    "--all-epochs",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Then train everything, at a tenth of the rate.",
)
def movinet(threads: int | None, as_json: bool, folder: Path, all_epochs: int, **chosen: Any) -> None:
    """Teach a MoViNet the classes of ROOT, a folder for each, into FOLDER, with a report on test videos.

    Its base stays as it is and gets a new head. Videos named as those of UCF101 are split by group. A run that was
    stopped goes on when the command is given again.
    """
    begin(threads)
    from vidx.train.classifier import Plan
    from vidx.train.movinet import train_movinet

    _tell(train_movinet(folder, Plan(**chosen), _teller(as_json), all_epochs=all_epochs), as_json)


def _teller(as_json: bool) -> Callable[[dict[str, Any]], None]:
    def tell(line: dict[str, Any]) -> None:
        if as_json:
            click.echo(json.dumps(line))
            return
        figures = ", ".join(f"{name} {line[name]:.3f}" for name in ("accuracy", "top5", "cross_entropy"))
        part = f"{line['part']}, " if "part" in line else ""
        click.echo(
            f"{part}step {line['step']}, {line['seconds']:.0f} s: loss {line['loss/classes']:.3f}; validation {figures}"
        )

    return tell


def _tell(tested: Tested, as_json: bool) -> None:
    """What the best weights do on the test videos, and with one of them."""
    for path, reason in tested.left_out.items():
        click.echo(f"left out {shown(str(path))}: {reason}", err=True)
    if as_json:
        figures = {"accuracy": tested.accuracy, "top5": tested.top5, "videos": tested.n_videos}
        example = {"path": str(tested.example), "guesses": dict(tested.guesses)}
        click.echo(json.dumps({"test": figures, "example": example, "report": str(tested.report)}))
        return
    click.echo(f"test: accuracy {tested.accuracy:.4f}, top-5 {tested.top5:.4f} of {tested.n_videos} videos")
    click.echo(f"{shown(str(tested.example))}:")
    for label, probability in tested.guesses:
        click.echo(f"  {probability:.3f}  {shown(label)}")
    click.echo(f"report: {shown(str(tested.report))}")
