"""The stages of `vidx index` for benchmarks/index.py: decoding alone, encoding alone, the whole command."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from vidx import encoders
from vidx.config import CLIP_S, IndexOptions
from vidx.encoders import EncoderSpec
from vidx.indexer.answers import Clip, DecodeOptions, Ended, View
from vidx.indexer.decode import decode
from vidx.indexer.jobs import Job, Part
from vidx.indexer.plan import Windows
from vidx.indexer.process import Limits
from vidx.indexer.walk import walk
from vidx.schema.records import FoundFile

Seconds = tuple[float, float]  # wall and CPU


def decode_only(folder: Path, spec: EncoderSpec) -> tuple[Seconds, list[np.ndarray]]:
    """Run all films of a folder through the decode stage with a process per core, as a run does.

    Returns the time of these processes and of taking what they send, and the clips, uint8 (frames, h, w, 3).
    """
    files = [file for file in walk(folder) if isinstance(file, FoundFile)]
    options = IndexOptions()
    clips = []
    with open(os.devnull, "wb") as log:
        stage = DecodeOptions(
            decoders=(options.decoder,),
            mode=options.decode_mode,
            views={spec.space.name: View(Windows(CLIP_S, CLIP_S, spec.space.frames), spec.space.preprocess)},
            thumbnails=options.thumbnails,
            workers=os.cpu_count() or 1,
            limits=Limits(),
            log=log,
        )
        began = _now()
        parts = (Part(spec.space.name),)
        for answer in decode((Job(file, str(number), parts) for number, file in enumerate(files)), stage):
            if isinstance(answer, Clip):
                clips.append(answer.views[0].pixels)
            elif isinstance(answer, Ended) and answer.outcome.state != "ok":
                sys.exit(f"{answer.job.file.path}: {answer.outcome.reason}")
    return _since(began), clips


def encode_only(clips: list[np.ndarray], spec: EncoderSpec) -> Seconds:
    """Encode clips in batches as a run does; the weights are loaded before."""
    encoder, size = encoders.build(spec), IndexOptions().batch_size
    encoder.encode_video(np.stack(clips[:1]))
    began = _now()
    for first in range(0, len(clips), size):
        encoder.encode_video(np.stack(clips[first : first + size]))
    return _since(began)


def whole_run(folder: Path, store: Path, encoder: str) -> Seconds:
    """`vidx index` from start to end, with all its processes. Every file has to be used or known."""
    command = [str(Path(sys.executable).with_name("vidx")), "index", str(folder), "--store", str(store)]
    began = _now()
    done = subprocess.run([*command, "--encoder", encoder, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    taken = _since(began)
    account = json.loads(done.stdout.splitlines()[-1])
    if account["files"] != account["indexed"] + account["unchanged"]:
        sys.exit(f"not all of {folder} could be used: {account}")
    return taken


def _now() -> Seconds:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.monotonic(), sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _since(began: Seconds) -> Seconds:
    now = _now()
    return now[0] - began[0], now[1] - began[1]
