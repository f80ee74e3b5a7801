"""CPU time of decoding one film for the default sampling, by vidx and by other ways: each in a process of its own.

    python benchmarks/_index_peers.py decord|opencv FILE THREADS

does it one way and prints user and system seconds, imports not counted, and how many frames there were.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from vidx.benchmarks.memory import family
from vidx.config import CLIP_S
from vidx.decoders import MODES
from vidx.indexer.plan import Windows
from vidx.indexer.process import DecodeProcess, Limits, job_message
from vidx.schema.records import Preprocess

FRAMES = 8  # of a window
EVERY_S = CLIP_S / FRAMES
SIDE_PX = 256
NEEDS = {"ffmpeg": "imageio_ffmpeg", "decord": "decord", "opencv": "cv2"}
WHEELS = {"ffmpeg": "imageio-ffmpeg", "decord": "decord", "opencv": "opencv-python-headless"}


@contextmanager
def ways(warm_up: Path) -> Iterator[dict[str, Callable[[Path], tuple[float, int]]]]:
    """Functions that decode a file and return CPU seconds and how many frames it gave, by name.

    vidx's decode process is kept from file to file and has decoded `warm_up` before; the others are started anew, with
    one thread and with as many as they take by themselves. A peer that is not installed is left out, in one line.
    """
    found: dict[str, Callable[[Path], tuple[float, int]]] = {}
    for peer in sorted(NEEDS):
        if find_spec(NEEDS[peer]) is None:
            print(f"{peer} is left out: pip install {WHEELS[peer]}", file=sys.stderr)
            continue
        run = _ffmpeg if peer == "ffmpeg" else partial(_in_python, peer)
        found |= {f"{peer}, 1 thread": partial(run, threads=1), f"{peer}, its threads": partial(run, threads=0)}
    process = DecodeProcess(Limits(), log=None)
    try:
        _ours(process, MODES[0], warm_up)
        yield {**{f"vidx {mode}": partial(_ours, process, mode) for mode in MODES}, **found}
    finally:
        process.kill()


def _ours(process: DecodeProcess, mode: str, path: Path) -> tuple[float, int]:
    asked = {"kind": "windows", "windows": [asdict(Windows(CLIP_S, CLIP_S, FRAMES))]}
    views = [Preprocess(SIDE_PX, SIDE_PX)]
    job = job_message(os.fsencode(path), asked, "pyav", views, mode=mode, thumbnails=False, threads=1)
    before_s, n_frames = _children_s(), 0
    for header, _ in process.answers(job):
        if header["kind"] == "clip":
            n_frames += header["views"][0]["shape"][0]
        elif header["kind"] == "end" and header["state"] != "ok":
            sys.exit(f"{path}: {header['state']}: {header['reason']}")
    return _children_s() - before_s, n_frames


def _children_s() -> float:
    """CPU seconds that the living children of this process have taken."""
    ticks = 0
    for pid in family(os.getpid()) - {os.getpid()}:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def _ffmpeg(path: Path, threads: int) -> tuple[float, int]:
    """The whole process: its start takes a few hundredths of a second."""
    imageio_ffmpeg = import_module("imageio_ffmpeg")

    few = ["-threads", "1", "-filter_threads", "1"] if threads == 1 else []
    filters = f"fps={1 / EVERY_S:g},scale=-2:{SIDE_PX},crop={SIDE_PX}:{SIDE_PX}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *few, "-i", str(path), "-an", "-vf", filters]
    with subprocess.Popen([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        n_bytes = 0
        while read := process.stdout.read(1 << 20):
            n_bytes += len(read)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"ffmpeg failed on {path}")
    return usage.ru_utime + usage.ru_stime, n_bytes // (3 * SIDE_PX * SIDE_PX)


def _in_python(peer: str, path: Path, threads: int) -> tuple[float, int]:
    command = [sys.executable, __file__, peer, str(path), str(threads)]
    cpu_s, n_frames = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return cpu_s, n_frames


def _decord(path: Path, threads: int) -> Callable[[], int]:
    import decord

    def read() -> int:
        reader = decord.VideoReader(str(path), width=SIDE_PX, height=SIDE_PX, num_threads=threads)
        rate, n_frames = reader.get_avg_fps(), len(reader)
        n_wanted = int(n_frames / rate / EVERY_S)
        return len(reader.get_batch([int((k + 0.5) * EVERY_S * rate) for k in range(n_wanted)]).asnumpy())

    return read


def _opencv(path: Path, threads: int) -> Callable[[], int]:
    cv2 = import_module("cv2")

    def read() -> int:
        settings = [cv2.CAP_PROP_N_THREADS, threads] if threads else []
        capture, n_frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, settings), 0
        rate, at = capture.get(cv2.CAP_PROP_FPS), 0
        while capture.grab():
            if at == int((n_frames + 0.5) * EVERY_S * rate):
                _, frame = capture.retrieve()
                n_frames += len(cv2.resize(frame, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)[None])
            at += 1
        return n_frames

    return read


def main(peer: str, path: str, threads: str) -> None:
    """Decode, and print what it took."""
    read = {"decord": _decord, "opencv": _opencv}[peer](Path(path), int(threads))
    before = resource.getrusage(resource.RUSAGE_SELF)
    n_frames = read()
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, n_frames]))


if __name__ == "__main__":
    main(*sys.argv[1:])
