"""`vidx train text4vis`, `actionclip` and `xclip`: encoders of videos and texts, fine-tuned to one's own classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidx.cli_train_options import begin, fine_tuning
from vidx.export import shown

if TYPE_CHECKING:
    from vidx.train.clip_text_run import Tested

_path = click.Path(path_type=Path)


def _options(encoder: str, rate: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What the three commands take."""
    options = [
        fine_tuning(epochs=10, rate=rate),
        click.option(
            "--encoder",
            "weights",
            default=encoder,
            show_default=True,
            metavar="NAME",
            help="To begin with: one of this family in `vidx encoders`, a folder that was trained, or clip-vitb32 and"
            " its like.",
        ),
        click.option("--weights", "files", type=_path, multiple=True, help="Files of its weights, if not in place."),
        click.option(
            "--names",
            type=click.Choice(["published", "words"]),
            default="published",
            show_default=True,
            help="Class names as their folders', or ApplyEyeMakeup as apply eye makeup.",
        ),
        click.option(
            "--mirror/--no-mirror",
            "mirrors",
            default=True,
            help="Learn from mirror images too; no, where left and right count.",
        ),
    ]

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


@click.command()
@_options("text4vis-vitb32-f8", 5e-6)
def text4vis(**chosen: Any) -> None:
    """Fine-tune Text4Vis to the classes of ROOT, a folder for each, into FOLDER, which is an encoder then.

    Texts stay as they are. A report tells how the test videos are told before and after. Videos named as those of
    UCF101 are split by group. A run that was stopped goes on when the command is given again.
    """
    _train("text4vis", **chosen)


@click.command()
@_options("actionclip-mmaction2-vitb32-8f", 5e-6)
def actionclip(**chosen: Any) -> None:
    """Fine-tune ActionCLIP to the classes of ROOT, a folder for each, into FOLDER, which is an encoder then.

    Texts learn as well: clips are matched with the other texts of their --batch, so a larger one teaches more. A report
    tells how the test videos are told before and after. Videos named as those of UCF101 are split by group. A run that
    was stopped goes on when the command is given again.
    """
    _train("actionclip", **chosen)


@click.command()
@_options("xclip-base-patch32", 8e-6)
def xclip(**chosen: Any) -> None:
    """Fine-tune X-CLIP to the classes of ROOT, a folder for each, into FOLDER, which is an encoder then.

    Its text tower stays as it is. A report tells how the test videos are told before and after. Videos named as those
    of UCF101 are split by group. A run that was stopped goes on when the command is given again.
    """
    _train("xclip", **chosen)


def _train(family: str, *, folder: Path, threads: int | None, as_json: bool, **chosen: Any) -> None:
    begin(threads)
    from vidx.train.clip_text_run import TextPlan, train_clip_text

    def tell(line: dict[str, Any]) -> None:
        click.echo(json.dumps(line) if as_json else _shown(line))

    _tell(train_clip_text(family, folder, TextPlan(**chosen), tell), folder, as_json)


def _shown(line: dict[str, Any]) -> str:
    loss = sum(value for name, value in line.items() if name.startswith("loss/"))
    figures = ", ".join(f"{name} {line[name]:.3f}" for name in ("accuracy", "top5", "cross_entropy"))
    return f"step {line['step']}, {line['seconds']:.0f} s: loss {loss:.3f}; validation {figures}"


def _tell(tested: Tested, folder: Path, as_json: bool) -> None:
    """What the best weights do on the test videos, and what those they began with did."""
    for path, reason in tested.left_out.items():
        click.echo(f"left out {shown(str(path))}: {reason}", err=True)
    both = {"trained": tested.trained, "before": tested.before}
    if as_json:
        kept = ("top1", "top5", "mean_class_accuracy", "items")
        figures = {title: {name: one[name] for name in kept} for title, one in both.items()}
        click.echo(json.dumps({"test": figures, "report": str(tested.report)}))
        return
    for title, one in both.items():
        click.echo(f"test, {title}: accuracy {one['top1']:.4f}, top-5 {one['top5']:.4f} of {one['items']} videos")
    click.echo(f"report: {shown(str(tested.report))}")
    click.echo(f"{shown(str(folder))} is an encoder now: `vidx index VIDEOS --encoder {shown(str(folder))}`")
