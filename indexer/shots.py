"""Where the shots of a video begin, and the clips they make: `--segment shots`.

Cuts are found by PySceneDetect: AdaptiveDetector (a frame that differs from the one before much more than its
neighbours do) and ThresholdDetector (fades through black). What they miss: docs/explanation/sampling.md.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from vidx.decoders import OpenVideo
from vidx.errors import InputError
from vidx.indexer.plan import Windows, representatives
from vidx.schema.records import PlannedClip, Preprocess, Timeline, Video

LEAST_S = 1.0  # shorter shots are joined to the next
_SKIM_FROM = 20.0  # frames per second; of slower videos too few frames would be left
_RATIO = 4.5  # of AdaptiveDetector; its own 3 takes quick movement for cuts
_LOOK_S = 1 / 16  # looking more often finds no more cuts, and takes more movement for one
_SMALL = Preprocess(short_side_px=64, crop_px=64, filter="squash-bilinear")
_TOLERANCE_S = 1e-6


def check_detector() -> None:
    """Raises InputError where the detectors are not installed."""
    if not all(find_spec(library) for library in ("scenedetect", "cv2")):
        raise InputError("--segment shots needs PySceneDetect", hint="pip install 'vidx[shots]'")


def detector_version() -> dict[str, str]:
    """What decides, beside the decoder, where cuts are found."""
    import scenedetect

    return {"scenedetect": scenedetect.__version__}


def mode_to_look(facts: Video) -> str:
    """In which mode to open a video for `cuts`."""
    return "skim" if facts.frame_rate >= _SKIM_FROM else "exact"


def cuts(video: OpenVideo) -> list[int]:
    """Ticks at which another shot begins, ascending; of frames that were decoded, at most a sixteenth of a second late.

    Decodes the whole video once, and keeps of each frame its tick.
    """
    import cv2
    from scenedetect import AdaptiveDetector, FrameTimecode, ThresholdDetector

    cv2.setNumThreads(1)  # the pictures are small, and threads take address space
    detectors = (AdaptiveDetector(_RATIO, min_scene_len=0), ThresholdDetector(min_scene_len=0))
    seen, found = array("q"), set()
    for _, frame in video.frames_at(_looked_at(video.timeline)):
        if seen and frame.tick <= seen[-1]:
            continue
        timecode = FrameTimecode(len(seen), fps=1.0)  # detectors are told numbers of frames, which need no rate
        seen.append(frame.tick)
        bgr = np.ascontiguousarray(frame.pixels(_SMALL)[..., ::-1])
        found |= {cut.frame_num for detector in detectors for cut in detector.process_frame(timecode, bgr)}
    return [seen[number] for number in sorted(found)]


def plan_shots(line: Timeline, cuts: Sequence[int], windows: Windows) -> list[PlannedClip]:
    """One clip for each shot between `cuts`, T frames each, as `plan` makes them of windows.

    Shots longer than `windows.clip_s` are divided in as few equal parts as are no longer; shots shorter than a second
    are joined to the next, and the last to the one before. Parts in which no frame starts are not made.
    """
    times_s = line.seconds(line.ticks)
    end_s = float(line.seconds(line.end_tick))
    begins_s = [float(times_s[0])]
    for cut_s in line.seconds(np.asarray(cuts, np.int64)):
        if min(cut_s - begins_s[-1], end_s - cut_s) >= LEAST_S - _TOLERANCE_S:
            begins_s.append(float(cut_s))
    return [
        PlannedClip(start_s, stop_s, representatives(line.ticks, times_s, start_s, stop_s, windows.frames))
        for begin_s, after_s in zip(begins_s, [*begins_s[1:], end_s], strict=True)
        for start_s, stop_s in _parts(times_s, begin_s, after_s, windows.clip_s)
    ]


def _looked_at(line: Timeline) -> list[int]:
    """Ticks of frames, each at least _LOOK_S behind the one before."""
    ticks, due_s = [], -np.inf
    for tick, time_s in zip(line.ticks.tolist(), line.seconds(line.ticks).tolist(), strict=True):
        if time_s >= due_s:
            ticks.append(tick)
            due_s = time_s + _LOOK_S - _TOLERANCE_S
    return ticks


def _parts(times_s: np.ndarray, begin_s: float, end_s: float, most_s: float) -> list[tuple[float, float]]:
    """Equal parts of a shot in which at least one frame starts, as (start, end)."""
    n_parts = max(1, int(np.ceil((end_s - begin_s) / most_s - _TOLERANCE_S)))
    part_s = (end_s - begin_s) / n_parts
    first, last = np.searchsorted(times_s, [begin_s - _TOLERANCE_S, end_s - _TOLERANCE_S])
    numbers = np.floor((times_s[first:last] - begin_s + _TOLERANCE_S) / part_s).astype(np.int64)
    held = np.unique(np.minimum(numbers, n_parts - 1)).tolist()
    return [(begin_s + n * part_s, end_s if n == n_parts - 1 else begin_s + (n + 1) * part_s) for n in held]
