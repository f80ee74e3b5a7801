"""What each recipe of `vidx train` for classes of one's own does on clips of motions, beside a frozen start.

    python benchmarks/recipes.py FOLDER [--recipe NAME ...] [--clips 100] [--json FILE] [--curves PNG]

Renders H.264 clips into FOLDER, makes small networks with random weights in the form of released ones, and runs the
commands on them, one thread each; a run that is there already is not done again. Prints what each command prints, and
a table. Frozen is a logistic regression on what the network gave before training, with the same clips to learn from.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vidx.benchmarks._recipes_frozen import frozen_accuracy, head_accuracy
from vidx.benchmarks._recipes_starts import MOTIONS, START_OF, render
from vidx.encoders._trained import read_model
from vidx.learn._pictures import curves_png
from vidx.train.footage import read_parts
from vidx.train.logs import LOG
from vidx.train.trained_classifier import HEAD_FOLDER


@dataclass(frozen=True)
class Recipe:
    """What is asked of a command, beside its start."""

    seconds: int  # of each clip
    start: str  # the option that names it
    options: str


# MoViNet looks at 4.8 s, VideoMAE at 2.1 s, the others at the whole of a clip. A mirror image of left is right.
RECIPES = {
    "text4vis": Recipe(3, "--encoder", "--no-mirror --epochs 32 --batch 16 --learning-rate 1e-3"),
    "actionclip": Recipe(3, "--encoder", "--no-mirror --epochs 32 --batch 16 --learning-rate 5e-4"),
    "xclip": Recipe(3, "--encoder", "--no-mirror --epochs 28 --batch 16 --learning-rate 2e-3"),
    "videomae": Recipe(3, "--weights", "--no-mirror --epochs 16 --batch 16 --learning-rate 2e-3"),
    "movinet": Recipe(5, "--weights", "--epochs 3 --all-epochs 6 --batch 8 --learning-rate 3e-2"),
}


@dataclass(frozen=True)
class Found:
    """Of one recipe. Accuracies are shares; losses and validation are those of each check, in their order."""

    recipe: str
    command: str
    videos: tuple[int, int, int]  # of training, validation and test
    steps: int
    minutes: float
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    test: float
    frozen: float
    before: float | None  # by the texts of classes
    head: float | None  # with the head alone trained
    confusion: tuple[tuple[int, ...], ...]


def main() -> None:
    """Print what the commands print, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", action="append", choices=list(RECIPES), help="may be given again  [default: all]")
    parser.add_argument("--clips", type=int, default=100, help="of each of six motions")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--curves", type=Path, help="draw losses and accuracies here, as PNG")
    arguments = parser.parse_args()
    names = arguments.recipe or list(RECIPES)
    found = [measured(arguments.folder, name, arguments.clips) for name in names]
    print(table(found))
    for one in found:
        print(f"\n{one.recipe}, true classes in rows\n\n{confusion_table(one)}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    if arguments.curves:
        arguments.curves.write_bytes(curves_png({name: logs_of(arguments.folder / "runs" / name) for name in names}))


def measured(folder: Path, name: str, clips: int) -> Found:
    """Train, and read what came of it from the run's folder."""
    recipe, run = RECIPES[name], folder / "runs" / name
    root = render(folder / f"clips of {recipe.seconds} s", clips, recipe.seconds)
    (folder / "starts").mkdir(exist_ok=True)
    start = START_OF[name](folder / "starts")
    given = [recipe.start, str(start), *recipe.options.split()]
    vidx = str(Path(sys.executable).with_name("vidx"))
    print(f"$ vidx train {name} VIDEOS FOLDER {recipe.start} {start.name} {recipe.options} --threads 1", flush=True)
    subprocess.run([vidx, "train", name, str(root), str(run), *given, "--threads", "1"], check=True)
    report = json.loads((run / "report.json").read_text())["figures"]
    figures = report.get("trained", report)  # those of encoders are told beside those of their start
    logs = [[json.loads(line) for line in log.splitlines()] for log in logs_of(run)]
    parts, lines = read_parts(root), [line for log in logs for line in log]
    return Found(
        recipe=name,
        command=f"{recipe.start} {start.name} {recipe.options}",
        videos=(len(parts.training), len(parts.validation), len(parts.test)),
        steps=sum(log[-1]["step"] for log in logs),
        minutes=sum(log[-1]["seconds"] for log in logs) / 60,
        losses=tuple(sum(value for key, value in line.items() if key.startswith("loss/")) for line in lines),
        validation=tuple(line["accuracy"] for line in lines),
        test=figures["top1" if "trained" in report else "accuracy"],
        frozen=frozen_accuracy(name, start, read_model(run), parts),
        before=report["before"]["top1"] if "before" in report else None,
        head=head_accuracy(run, read_model(run), parts) if name == "movinet" else None,
        confusion=tuple(map(tuple, figures["confusion"])),
    )


def logs_of(run: Path) -> list[str]:
    """The texts of its logs, of parts that were trained one behind the other."""
    paths = [path for path in (run / HEAD_FOLDER / LOG, run / LOG) if path.exists()]
    return [path.read_text("utf-8") for path in paths]


def table(found: list[Found]) -> str:
    """Markdown with a row for each recipe; accuracies in per cent."""
    columns = ("recipe", "options", "videos", "steps", "minutes", "loss, first and last")
    accuracies = ("validation %, by epoch", "test %", "frozen %", "others, test %")
    rows = [
        (
            *(one.recipe, f"`{one.command}`", " + ".join(map(str, one.videos)), str(one.steps), f"{one.minutes:.1f}"),
            f"{one.losses[0]:.2f}, {one.losses[-1]:.2f}",
            " ".join(f"{100 * share:.0f}" for share in one.validation),
            *(f"{100 * one.test:.1f}", f"{100 * one.frozen:.1f}", others(one)),
        )
        for one in found
    ]
    return _markdown((*columns, *accuracies), rows)


def others(one: Found) -> str:
    """What else the test videos were told by."""
    told = {"texts, before": one.before, "head alone": one.head}
    return ", ".join(f"{name} {100 * share:.1f}" for name, share in told.items() if share is not None)


def confusion_table(one: Found) -> str:
    """Markdown: counts of test videos, true classes in rows."""
    classes = sorted(MOTIONS)
    rows = [(name, *map(str, counts)) for name, counts in zip(classes, one.confusion, strict=True)]
    return _markdown(("", *classes), rows)


def _markdown(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, ("---",) * len(columns), *rows))


if __name__ == "__main__":
    main()
