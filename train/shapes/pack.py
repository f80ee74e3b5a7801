"""Brings a training's weights in half precision to where `vidx.encoders.shapes` has them from.

    python -m vidx.train.shapes.pack FOLDER

prints the digests and sizes that go into that module.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from vidx.encoders._trained import TOKENIZER, WEIGHTS
from vidx.encoders._weights import digest_of
from vidx.encoders.shapes import SHIPPED


def pack(run: Path, to: Path) -> list[Path]:
    """Write the weights of a folder of `vidx train shapes`, all float16, and its tokenizer. Returns the files."""
    to.mkdir(parents=True, exist_ok=True)
    halves = {name: tensor.half().contiguous() for name, tensor in load_file(run / WEIGHTS).items()}
    save_file(halves, to / WEIGHTS)
    (to / TOKENIZER).write_bytes((run / TOKENIZER).read_bytes())
    return [to / WEIGHTS, to / TOKENIZER]


if __name__ == "__main__":
    for path in pack(Path(sys.argv[1]), SHIPPED):
        print(path.name, digest_of(path), path.stat().st_size)
