"""The training loop of every recipe: steps, checkpoints, logs, and when to stop.

A step depends on its number, the seed and the weights alone: a batch is a pure function of its number, and what else is
random is seeded anew at each step. So a run that was killed and goes on ends as one that was not.
"""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from safetensors.torch import save
from torch import Tensor, nn

from vidx.errors import InputError
from vidx.schema.files import write_atomically
from vidx.train.logs import Logs

CHECKPOINT, WEIGHTS = "checkpoint.pt", "model.safetensors"
_BETAS = (0.9, 0.98)


class Recipe(Protocol):
    """What is trained, and on what."""

    @property
    def decides(self) -> str | None:
        """The figure of `evaluate` that says which weights are best, more is better; None: the newest are."""

    @property
    def module(self) -> nn.Module:
        """Called with a batch: its losses by name, each a scalar, already weighted."""

    def batch(self, number: int) -> Any:
        """A pure function of its number; tensors in it may be nested in tuples and dicts."""

    def evaluate(self) -> dict[str, float]:
        """Figures of the module as it is now, on what it was not trained with."""

    def weights(self) -> Mapping[str, Tensor]:
        """What is kept of the module."""


@dataclass(frozen=True)
class Settings:
    """How long and how fast. A step is `accumulate` batches, on each device."""

    steps: int
    learning_rate: float
    warmup_steps: int = 0
    weight_decay: float = 0.05
    most_norm: float = 1.0  # of the gradient; longer ones are cut
    accumulate: int = 1
    precision: str = "no"  # no, fp16 or bf16
    seed: int = 0
    check_steps: int = 100  # how often to evaluate and to keep a checkpoint
    patience: int | None = None  # checks without a better figure until it stops


@dataclass
class Progress:
    """Where a run stands; `best` is the deciding figure of the weights that are kept."""

    step: int = 0
    best: float = -math.inf
    stale: int = 0
    seconds: float = 0.0


def is_first_process() -> bool:
    """Whether this is the one of several processes that writes and tells, as torch's and accelerate's launchers say."""
    return os.environ.get("RANK", "0") == "0"


def fit(recipe: Recipe, settings: Settings, folder: Path, tell: Callable[[dict[str, Any]], None]) -> Progress:
    """Train, or go on where a run in `folder` was stopped; the best weights are left in `folder`/model.safetensors.

    `tell` gets what is written to log.jsonl, a line each. Raises InputError where `folder` holds a run with other
    settings, or the loss is no number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # a part may train some alone
    )
    optimizer = torch.optim.AdamW(_groups(recipe.module, settings.weight_decay), settings.learning_rate, _BETAS)
    module, optimizer = accelerator.prepare(recipe.module, optimizer)
    run = _Run(recipe, settings, folder, accelerator, module, optimizer)
    if not accelerator.is_main_process:  # the first of several writes for all
        run.go_on(lambda _line: None)
        accelerator.wait_for_everyone()
        return run.progress
    with Logs(folder, run.progress.step) as logs:

        def log(line: dict[str, Any]) -> None:
            logs.write(line)
            run.keep()
            tell(line)

        run.go_on(log)
    accelerator.wait_for_everyone()  # what follows may read the weights
    return run.progress


class _Run:
    """One run, from its beginning or from where one was stopped."""

    def __init__(
        self,
        recipe: Recipe,
        settings: Settings,
        folder: Path,
        accelerator: Accelerator,
        module: nn.Module,
        optimizer: Any,
    ) -> None:
        self._recipe, self._settings, self._folder = recipe, settings, folder
        self._accelerator, self._module, self._optimizer = accelerator, module, optimizer
        self.progress = Progress()
        self._resume()

    def go_on(self, log: Callable[[dict[str, Any]], None]) -> None:
        """Train to the end; each check is logged."""
        settings, progress = self._settings, self.progress
        began = time.monotonic() - progress.seconds
        for step, batches in self._batches():
            losses = self._step(step, batches)
            progress.step, progress.seconds = step + 1, time.monotonic() - began
            if progress.step % settings.check_steps == 0 or progress.step == settings.steps:
                log(self._check(losses))

    def _batches(self) -> Iterator[tuple[int, list[Any]]]:
        """Step by step, the next one made while one is trained on."""
        settings, accelerator = self._settings, self._accelerator

        def made(step: int) -> list[Any]:
            first = step * settings.accumulate
            return [
                self._recipe.batch((first + at) * accelerator.num_processes + accelerator.process_index)
                for at in range(settings.accumulate)
            ]

        if self._has_stalled():
            return
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(made, self.progress.step)
            for step in range(self.progress.step, settings.steps):
                batches = coming.result()
                if step + 1 < settings.steps:
                    coming = ahead.submit(made, step + 1)
                yield step, batches
                if self._has_stalled():
                    return

    def _has_stalled(self) -> bool:
        patience = self._settings.patience
        return patience is not None and self.progress.stale >= patience

    def _step(self, step: int, batches: list[Any]) -> dict[str, float]:
        settings, accelerator = self._settings, self._accelerator
        rate = learning_rate(settings, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(settings.seed * 1_000_003 + step)
        self._module.train()
        told: dict[str, float] = {}
        for batch in batches:
            with accelerator.autocast():
                losses = self._module(moved(batch, accelerator.device))
                total = torch.stack(list(losses.values())).sum() / len(batches)
            accelerator.backward(total)
            for name, loss in losses.items():
                told[name] = told.get(name, 0.0) + float(loss.detach()) / len(batches)
        if not all(map(math.isfinite, told.values())):
            raise InputError(f"the loss is no number at step {step}", hint="take a lower learning rate")
        accelerator.clip_grad_norm_(self._module.parameters(), settings.most_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return told

    def _check(self, losses: dict[str, float]) -> dict[str, Any]:
        """Evaluate, and keep the weights if they are the best so far."""
        progress = self.progress
        self._module.eval()
        with torch.no_grad():
            figures = self._recipe.evaluate()
        decides = self._recipe.decides
        figure = progress.step if decides is None else figures[decides]
        is_better = figure > progress.best
        progress.stale = 0 if is_better else progress.stale + 1
        if is_better:
            progress.best = figure
            if self._accelerator.is_main_process:
                tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._recipe.weights().items()}
                write_atomically(self._folder / WEIGHTS, save(tensors))
        line: dict[str, Any] = {"step": progress.step, "seconds": round(progress.seconds, 1)}
        line |= {f"loss/{name}": round(loss, 5) for name, loss in losses.items()}
        return line | {name: round(figure, 5) for name, figure in figures.items()}

    def keep(self) -> None:
        """Write a place to go on from."""
        state = {
            "settings": asdict(self._settings),
            "progress": asdict(self.progress),
            "module": self._accelerator.unwrap_model(self._module).state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        data = io.BytesIO()
        torch.save(state, data)
        write_atomically(self._folder / CHECKPOINT, data.getvalue())

    def _resume(self) -> None:
        path = self._folder / CHECKPOINT
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["settings"] != asdict(self._settings):
            raise InputError(
                f"{self._folder} holds a run of other settings", hint="take another folder, or the same settings"
            )
        self._accelerator.unwrap_model(self._module).load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])


def learning_rate(settings: Settings, step: int) -> float:
    """Rises in a line over the warm-up, then falls along half a cosine to nothing."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; scales, offsets and what is fewer than two-dimensional do not."""
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in learned if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in learned if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def moved(batch: Any, device: torch.device) -> Any:
    """A batch with all its tensors on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(moved(value, device) for value in batch)
    return batch
