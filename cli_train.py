"""`vidx train`: encoders of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vidx.cli_train_classifiers import movinet, videomae
from vidx.cli_train_encoders import actionclip, text4vis, xclip
from vidx.cli_train_options import begin
from vidx.export import shown

_THREADS = click.option(
    "--threads", type=click.IntRange(1, 512), help="On CPU; with 1 a run gives the same digits again.  [default: all]"
)


@click.group()
def train() -> None:
    """Train encoders; an interrupted run goes on when the command is given again."""


for command in (text4vis, actionclip, xclip, videomae, movinet):
    train.add_command(command)


@train.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--frame-mean", is_flag=True, help="The control: the same network, each frame seen by itself.")
@click.option("--frame-steps", type=click.IntRange(1), default=3000, show_default=True, help="Of the part on frames.")
@click.option("--clip-steps", type=click.IntRange(1), default=1600, show_default=True, help="Of the part on clips.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@_THREADS
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each check.")
def shapes(folder: Path, threads: int | None, as_json: bool, **chosen: Any) -> None:
    """Train a small X-CLIP on rendered clips of moving shapes into FOLDER, which is an encoder then."""
    begin(threads)
    from vidx.train.shapes.run import Plan, train_shapes

    def tell(line: dict[str, Any]) -> None:
        click.echo(json.dumps(line) if as_json else _shown(line))

    train_shapes(folder, Plan(**chosen), tell)
    if not as_json:
        click.echo(f"report: {shown(str(folder / 'report.md'))}")
        click.echo(f"{folder} is an encoder now: `vidx index VIDEOS --encoder {folder}`")


def _shown(line: dict[str, Any]) -> str:
    """The step, the loss and all figures of a check."""
    loss = sum(value for name, value in line.items() if name.startswith("loss/"))
    figures = [
        f"{name} {value:.3f}"
        for name, value in line.items()
        if name not in ("part", "step", "seconds") and "/" not in name
    ]
    return f"{line['part']}, step {line['step']}, {line['seconds']:.0f} s: loss {loss:.3f}, {', '.join(figures)}"
