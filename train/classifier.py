"""Training a video classifier of closed classes: what VideoMAE and MoViNet have in common.

A run's folder holds a trained model: `model.json`, which says how to rebuild the network and how to look at videos, the
best weights by accuracy on the validation videos, and a report on the test videos.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidx.encoders._trained import MODEL, read_model, write_model
from vidx.errors import InputError
from vidx.pixels import NORMALISATIONS
from vidx.train.augment import View
from vidx.train.footage import Parts, Reader, in_batches, read_parts, shuffled
from vidx.train.loop import Settings, fit

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train on and for how long; see `vidx.train.footage.read_parts` for lists, split and shots."""

    root: Path
    weights: str  # to begin with: a name, a file or a folder, as the family takes them
    lists: Path | None = None
    split: str = "1"  # of published lists
    shots: int | None = None  # training videos of a class; None: all
    epochs: int
    batch: int = 8
    accumulate: int = 1  # batches in a step
    patience: int | None = None  # epochs without better validation until it stops
    learning_rate: float
    precision: str = "no"  # of training on a GPU: no (single), fp16 or bf16
    seed: int = 0

    def parts(self) -> Parts:
        """Raises InputError."""
        return read_parts(self.root, lists=self.lists, split=self.split, shots=self.shots, seed=self.seed)

    def settings(self, n_videos: int, *, warmup_share: float = 0.0) -> Settings:
        """Checked after each epoch of so many videos; without decay of weights AdamW is Adam."""
        in_step = self.batch * self.accumulate
        steps = max(1, round(self.epochs * n_videos / in_step))
        return Settings(
            steps,
            self.learning_rate,
            warmup_steps=round(warmup_share * steps),
            weight_decay=0.0,
            precision=self.precision,
            seed=self.seed,
            check_steps=max(1, round(n_videos / in_step)),
            accumulate=self.accumulate,
            patience=self.patience,
        )


class Batch(NamedTuple):
    """Clips uint8 (B, T, side, side, 3) and their classes int64 (B,)."""

    pictures: Tensor
    labels: Tensor


class Classifier(nn.Module):
    """A network with its input's colours. `frozen` parts of it stay as they are, their running statistics too."""

    def __init__(
        self,
        network: nn.Module,
        logits_of: Callable[[nn.Module, Tensor], Tensor],
        normalise: str,
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        """`logits_of` calls the network with colours float32 (B, T, 3, side, side)."""
        super().__init__()
        self.network = network
        self._logits_of, self._frozen = logits_of, tuple(frozen)
        colours = NORMALISATIONS[normalise]
        for name, values in (("mean", colours.mean), ("std", colours.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        network.requires_grad_(True)
        for part in self._frozen:
            part.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Classifier:
        """As of any module, but for the frozen parts."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def logits(self, pictures: Tensor) -> Tensor:
        """(B, classes) of clips uint8 (B, T, side, side, 3)."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return self._logits_of(self.network, (pictures.to(mean.device).movedim(-1, -3).float() / 255 - mean) / std)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy with the classes."""
        return {"classes": F.cross_entropy(self.logits(batch.pictures), batch.labels)}


class ClassifierRecipe:
    """See `vidx.train.loop.Recipe`. Its processes decode until it is left as a context."""

    decides = "choice"

    def __init__(self, module: Classifier, view: View, parts: Parts, *, batch: int, seed: int) -> None:
        self.module = module
        self._view, self._videos, self._batch, self._seed = view, parts.training, batch, seed
        self._checks = parts.validation
        n, n_checks = len(parts.training), len(parts.validation)
        self._reader = Reader(
            parts.training, view.training_look, lambda at: shuffled(n, seed, at)[1], after=self._after
        )
        self._check_reader = Reader(parts.validation, view.look, lambda at: at if at < n_checks else None)

    def __enter__(self) -> ClassifierRecipe:
        return self

    def __exit__(self, *_error: object) -> None:
        for reader in (self._reader, self._check_reader):
            reader.close()

    @property
    def failed(self) -> dict[Path, str]:
        """Files that could not be decoded, and why; they are left out."""
        return self._reader.failed | self._check_reader.failed

    def batch(self, number: int) -> Batch:
        """See `vidx.train.loop.Recipe`. Without files that can't be decoded; where all can't, the next that can.

        Raises InputError where there is none.
        """
        pictures: list[np.ndarray] = []
        labels: list[int] = []
        first, end = number * self._batch, (number + 1) * self._batch
        for position in range(first, end + 2 * len(self._videos)):  # which is at least an epoch more
            if position >= end and pictures:
                break
            looked = self._reader.at(position)
            if looked.views:
                epoch, item = shuffled(len(self._videos), self._seed, position)
                pictures.append(self._view.drawn(looked, np.random.default_rng([self._seed, epoch, item])))
                labels.append(self._videos[item].label)
        if not pictures:
            raise _unreadable(self._reader.failed)
        return Batch(torch.from_numpy(np.stack(pictures)), torch.tensor(labels))

    def _after(self, position: int) -> int:
        """The next position that this process looks at: where there are several, they take batches in turn."""
        others = int(os.environ.get("WORLD_SIZE", "1")) - 1  # as torch's and accelerate's launchers set it
        return position + 1 + (0 if (position + 1) % self._batch else others * self._batch)

    def evaluate(self) -> dict[str, float]:
        """On the validation videos: the share told right, also among the best five, and the mean cross-entropy.

        `choice` is the accuracy, and of equal ones, which few videos often give, more for a lower cross-entropy.
        """
        logits, labels = [], []
        for pictures, of_videos in in_batches(self._check_reader, self._checks, self._batch):
            logits.append(self.module.logits(torch.from_numpy(pictures)).float().cpu())
            labels.append(torch.tensor([video.label for video in of_videos]))
        if not labels:
            raise _unreadable(self._check_reader.failed)
        scores, right = torch.cat(logits), torch.cat(labels)
        found = scores.topk(min(5, scores.shape[1])).indices == right[:, None]
        accuracy, cross_entropy = float(found[:, 0].float().mean()), float(F.cross_entropy(scores, right))
        return {
            "accuracy": accuracy,
            "top5": float(found.any(1).float().mean()),
            "cross_entropy": cross_entropy,
            "choice": accuracy + 1 / ((1 + cross_entropy) * (len(right) + 1)),  # less than one video more
        }

    def weights(self) -> Mapping[str, Tensor]:
        """Of the network, under its own names."""
        return self.module.network.state_dict()


def _unreadable(failed: dict[Path, str]) -> InputError:
    path, reason = next(iter(failed.items()))
    return InputError(f"{len(failed)} videos can't be decoded, as {path}: {reason}", hint="`vidx index` tells of each")


def train(
    folder: Path, module: Classifier, view: View, parts: Parts, settings: Settings, batch: int, tell: Tell
) -> dict[Path, str]:
    """Train, or go on where a run in `folder` was stopped. Returns the files left out, and why. Raises InputError."""
    with ClassifierRecipe(module, view, parts, batch=batch, seed=settings.seed) as recipe:
        fit(recipe, settings, folder, tell)
        return recipe.failed


def describe(folder: Path, plan: Plan, parts: Parts, view: View, **facts: Any) -> None:
    """Write model.json: `facts` are `family`, `normalise` and what else rebuilds the network.

    Raises InputError where the folder holds a run of something else.
    """
    names = ("epochs", "batch", "accumulate", "patience", "learning_rate", "precision", "shots", "seed")
    chosen = {name: getattr(plan, name) for name in names}
    counts = {name: len(getattr(parts, name)) for name in ("training", "validation", "test")}
    described = {
        **facts,
        "labels": list(parts.classes),
        "frames": view.frames,
        "sampling": asdict(view.look.sampling),
        "preprocess": asdict(view.look.preprocess),
        "trained_on": f"{counts['training']} videos of {len(parts.classes)} classes",
        "training": {
            **chosen,
            "crops": view.crops,
            "mirrors": view.mirrors,
            **counts,
            "parts": parts.digest(plan.root),
        },
    }
    if (folder / MODEL).is_file():
        there = read_model(folder)
        if {name: value for name, value in there.items() if name != "format"} != json.loads(json.dumps(described)):
            raise InputError(
                f"{folder} holds a model of another run", hint="take another folder, or the same videos and options"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, **described)


def new_head(n_classes: int, n_inputs: int, seed: int, std: float) -> tuple[Tensor, Tensor]:
    """Random weights (n_classes, n_inputs) and a bias of nothing."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_classes, n_inputs, generator=generator) * std, torch.zeros(n_classes)
