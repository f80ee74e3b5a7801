"""`vidx index --rebuild-index` killed at any instant: searches stay right, and the next one finishes the job."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.search.collection import open_collection
from vidx.search.rebuild import index_folder
from vidx.search.verify import index_troubles
from vidx.tests.made_store import DIM, SPACE, Archive, unit
from vidx.vectors import _generations

pytestmark = pytest.mark.slow


def command(store: Path) -> list[str]:
    return [sys.executable, "-m", "vidx.cli", "index", "--rebuild-index", "--tier", "ivf", "--store", str(store)]


def test_a_rebuild_may_be_killed_at_any_instant(store: Store) -> None:
    archive, rng, chance = Archive(store), np.random.default_rng(0), random.Random(0)
    for name in "abcdefgh":
        archive.add(name, unit(rng.standard_normal((400, DIM))), [f"/{name}.mp4".encode()])
    began = time.monotonic()
    subprocess.run(command(store.path), check=True, capture_output=True)
    whole_s = time.monotonic() - began
    folder, killed = index_folder(store, SPACE), 0
    for name in "ijklmnop":
        archive.add(name, unit(rng.standard_normal((50, DIM))), [f"/{name}.mp4".encode()])
        process = subprocess.Popen(command(store.path), stderr=subprocess.DEVNULL)
        try:
            process.wait(whole_s * chance.uniform(0.3, 1.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        vectors = np.concatenate(list(archive.vectors.values()))
        ids = np.concatenate([np.array(own) for own in archive.ids.values()])
        collection = open_collection(Snapshot(store), SPACE)
        assert collection.generation is not None
        assert collection.trouble == ""
        query = unit(rng.standard_normal(DIM))
        found = collection.search(query, len(ids))[1]
        assert found.tolist() == ids[np.lexsort((ids, -np.einsum("nd,d->n", vectors, query)))].tolist()
    assert killed >= 3
    subprocess.run(command(store.path), check=True, capture_output=True)
    assert list(folder.glob("building-*")) == []
    assert len(_generations.names(folder)) == 2
    assert list(index_troubles(Snapshot(store), SPACE)) == []
