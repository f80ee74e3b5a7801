"""How fast encoders turn clips into vectors, as a share of what the machine's bare matrix products reach.

    python benchmarks/encoders.py [--encoders NAME ...] [--runs 5] [--json] [--write DIR]

The networks are full-size and have random weights: speed does not depend on them. Frames are in memory: decoding does
not count. Operations are counted by torch for the forward pass of one clip; the yardstick is one large product of
matrices in the encoder's own precision, in the same run, before and after. With --write the weights are kept as files
in the layout in which they are released, to be given to `vidx index --weights`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vidx import encoders
from vidx.encoders import VideoTextEncoder

SIDE_OF_PRODUCT = {"cpu": 2048, "cuda": 16384}
CLIPS = {"cpu": 4, "cuda": 64}
ENCODERS = ("clip-vitb32", "xclip-base-patch32", "text4vis-vitb32-f8", "actionclip-vitb32-8f", "conse")


def main() -> None:
    """Print a line for each encoder; with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, choices=ENCODERS, metavar="NAME")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.write or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.encoders:
            spec = encoders.here(name, released_files(name, folder))
            found[name] = measured(encoders.build(spec), arguments.runs)
            row = found[name]
            print(
                f"{name:24} {row['clips_per_s']:8.2f} clips/s  {row['gflop_per_clip']:7.1f} GFLOP a clip "
                f" {row['share_of_products']:5.0%} of bare products ({row['products_gflops']:.0f} GFLOP/s)"
            )
    if arguments.json:
        print(json.dumps({"runs": arguments.runs, "threads": torch.get_num_threads(), "encoders": found}))


def measured(encoder: VideoTextEncoder, runs: int) -> dict[str, Any]:
    """Medians over runs of an encoder and of the yardstick."""
    space, device = encoder.spec.space, encoder.device
    side = space.preprocess.crop_px
    frames = np.random.default_rng(0).integers(0, 256, (CLIPS[device], space.frames, side, side, 3), np.uint8)
    encoder.encode_video(frames)  # loads it, and warms it up
    torch.backends.mha.set_fastpath_enabled(False)  # whose operations torch does not count
    with FlopCounterMode(display=False) as counter:
        encoder.encode_video(frames)
    torch.backends.mha.set_fastpath_enabled(True)
    gflop = counter.get_total_flops() / len(frames) / 1e9
    dtype = torch.bfloat16 if encoder.precision == "bfloat16" else torch.float32
    products = [products_gflops(device, dtype)]
    seconds = [timed(lambda: encoder.encode_video(frames)) for _ in range(runs)]
    products.append(products_gflops(device, dtype))
    clips_per_s, peak = len(frames) / statistics.median(seconds), statistics.mean(products)
    return {
        "clips_per_s": round(clips_per_s, 3),
        "batch": len(frames),
        "gflop_per_clip": round(gflop, 2),
        "products_gflops": round(peak, 1),
        "share_of_products": round(clips_per_s * gflop / peak, 3),
        "cost_per_hour_s": round(360 / clips_per_s, 1),  # of video, at a clip every 10 s
        "device": device,
        "precision": encoder.precision,
    }


def products_gflops(device: str, dtype: torch.dtype) -> float:
    """What one large product of matrices reaches: the median of five."""
    side = SIDE_OF_PRODUCT[device]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    product()
    return 2 * side**3 / statistics.median(timed(product) for _ in range(5)) / 1e9


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def released_files(name: str, folder: Path) -> list[Path]:
    """Random weights of an encoder, in files as its authors' are laid out; none for those that carry their own."""
    family = name.split("-")[0]
    if family == "conse":
        return []
    clip_file, path = folder / "ViT-B-32.pt", folder / f"{name}.pt"
    if family == "xclip":
        from transformers import XCLIPConfig, XCLIPModel

        torch.save(XCLIPModel(XCLIPConfig()).state_dict(), path)
        return [path]
    state = random_clip()
    if family == "clip":
        torch.save(state, path)
        return [path]
    head = random_head()
    if family == "actionclip":
        fusion = {f"module.{key}": tensor for key, tensor in head.items()}
        torch.save({"epoch": 1, "model_state_dict": state, "fusion_model_state_dict": fusion}, path)
        return [path]
    video = {key: tensor for key, tensor in state.items() if key.startswith("visual.") or key == "logit_scale"}
    torch.save({"epoch": 1, "model_state_dict": {**video, **{f"fusion_model.{k}": t for k, t in head.items()}}}, path)
    torch.save(state, clip_file)
    return [path, clip_file]


def random_clip() -> dict[str, torch.Tensor]:
    """A whole ViT-B/32 in OpenAI's names."""
    import open_clip

    state: dict[str, torch.Tensor] = open_clip.create_model("ViT-B-32-quickgelu").state_dict()
    return state


def random_head() -> dict[str, torch.Tensor]:
    """The temporal transformer of Text4Vis and ActionCLIP."""
    from vidx.encoders._heads import ANY_FRAMES, EPS_ORIGINAL, TemporalTransformer

    return dict(TemporalTransformer(512, 8, 6, ANY_FRAMES, EPS_ORIGINAL).state_dict())


if __name__ == "__main__":
    main()
