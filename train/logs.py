"""What a run says of itself: a line of JSON for each check, and the same for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from vidx.schema.files import write_atomically

LOG, TENSORBOARD = "log.jsonl", "tensorboard"


class Logs:
    """The two logs in a folder; what they say of steps behind `step` is dropped, as it is done again."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = folder / LOG
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        write_atomically(path, "".join(line for line in lines if json.loads(line)["step"] <= step).encode())
        self._lines = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._lines.close()
        self._board.close()

    def write(self, line: dict[str, Any]) -> None:
        """A check: its `step`, and figures by name."""
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        for name, figure in line.items():
            if name != "step":
                self._board.add_scalar(name, figure, line["step"])
        self._board.flush()
