"""`vidx train videomae` and `vidx train movinet`: classifiers of one's own classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidx.export import shown

if TYPE_CHECKING:
    from vidx.train.trained_classifier import Tested

_path = click.Path(path_type=Path)


def _options(epochs: int, rate: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What both commands take."""
    options = [
        click.argument("root", type=_path),
        click.argument("folder", type=click.Path(path_type=Path, file_okay=False)),
        click.option("--lists", type=_path, help="The folder of UCF101's split lists.  [default: below ROOT]"),
        click.option(
            "--split", type=click.Choice(["1", "2", "3"]), default="1", show_default=True, help="Of the lists."
        ),
        click.option("--shots", type=click.IntRange(1), help="Train on so many videos of each class.  [default: all]"),
        click.option("--epochs", type=click.IntRange(1), default=epochs, show_default=True),
        click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Videos in a step."),
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


@click.command()
@_options(epochs=4, rate=5e-5)
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
    from vidx.train.classifier import Plan
    from vidx.train.videomae import train_videomae

    _use(threads)
    _tell(train_videomae(folder, Plan(**chosen), _teller(as_json), mirrors=mirror), as_json)


@click.command()
@_options(epochs=2, rate=1e-3)
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
    from vidx.train.classifier import Plan
    from vidx.train.movinet import train_movinet

    _use(threads)
    _tell(train_movinet(folder, Plan(**chosen), _teller(as_json), all_epochs=all_epochs), as_json)


def _use(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


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
