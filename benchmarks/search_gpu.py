"""The exact tier on a GPU: latency of one query beside the time to read the vectors once at the memory's own speed.

    python benchmarks/search_gpu.py [--clips 10000000] [--dim 512] [--json]

Half-precision vectors drawn at random, so nothing but time is measured; the memory's speed is that of a copy between
two buffers, reading and writing counted, as torch does it in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import faiss
import numpy as np
import torch

BLOCK_ROWS, QUERIES = 100_000, 50


def main() -> int:
    """Print the figures; exit code 1 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or not hasattr(faiss, "GpuIndexFlat") or faiss.get_num_gpus() == 0:
        print("no GPU that both torch and FAISS can use", file=sys.stderr)
        return 1
    bytes_a_second = memory_speed()
    configuration = faiss.GpuIndexFlatConfig()
    configuration.useFloat16 = True
    resources = faiss.StandardGpuResources()
    index = faiss.GpuIndexFlat(resources, arguments.dim, faiss.METRIC_INNER_PRODUCT, configuration)
    rng = np.random.default_rng(0)
    block = rng.standard_normal((BLOCK_ROWS, arguments.dim), dtype=np.float32)
    for at in range(0, arguments.clips, BLOCK_ROWS):
        index.add(np.roll(block, at // BLOCK_ROWS, axis=1)[: arguments.clips - at])
    queries = rng.standard_normal((QUERIES, arguments.dim), dtype=np.float32)
    index.search(queries[:1], 40)
    times_s = []
    for query in queries:
        began = time.perf_counter()
        index.search(query[None], 40)
        times_s.append(time.perf_counter() - began)
    limit_s = arguments.clips * arguments.dim * 2 / bytes_a_second
    result = {
        "device": torch.cuda.get_device_name(0),
        "clips": arguments.clips,
        "dim": arguments.dim,
        "p50_ms": round(statistics.median(times_s) * 1000, 3),
        "limit_ms": round(limit_s * 1000, 3),
        "ratio": round(statistics.median(times_s) / limit_s, 3),
        "memory_gb_per_s": round(bytes_a_second / 1e9, 1),
    }
    print(json.dumps(result) if arguments.json else "\n".join(f"{name:16} {value}" for name, value in result.items()))
    return 0


def memory_speed() -> float:
    """Bytes a second, read and written together."""
    source = torch.empty(2 * 2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    rates = []
    for _ in range(12):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        rates.append(2 * source.numel() / (time.perf_counter() - began))
    return statistics.median(rates)


if __name__ == "__main__":
    sys.exit(main())
