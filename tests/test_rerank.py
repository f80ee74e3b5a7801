"""What `--rerank` refuses, and how a command tells what it left as it was; scores: tests/test_network_encoder.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from vidx import encoders
from vidx.cli_search import search as command
from vidx.config import SearchOptions
from vidx.errors import InputError, Unreadable
from vidx.schema.records import Answer, Hit
from vidx.schema.store import Store
from vidx.search import rerank as module
from vidx.search.query import check_asked
from vidx.search.rerank import check_rerank, rerank


def exact(score: float = 0.5) -> Any:
    """Stands for an encoder that scores as X-CLIP does."""
    return SimpleNamespace(
        spec=encoders.spec("xclip-base-patch32"), exact_scores=lambda *_: np.full((1, 1), score, np.float32)
    )


def hit(rank: int) -> Hit:
    return Hit(rank, 1 / rank, 2.0, f"v{rank}", f"/{rank}.mp4", [f"/{rank}.mp4"], True, 0.0, 1.0, 0.5, [rank])


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (["a dog"], {"unwanted": "snow"}),
        (["a dog"], {"like": __file__}),
        (["a dog"], {"then": "it barks"}),
        (["a dog", "a cat"], {}),
        ([], {"like": __file__}),
    ],
)
def test_what_reranking_would_drop_is_refused(texts: list[str], options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--rerank scores one text alone") as caught:
        check_rerank(exact(), check_asked(texts, SearchOptions(**options)))
    assert all(name in caught.value.hint for name in ("--like", "--not", "--then"))
    check_rerank(exact(), check_asked(["a dog"], SearchOptions()))


def test_an_encoder_without_exact_scores_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to re-rank"):
        check_rerank(SimpleNamespace(spec=encoders.spec("conse")), check_asked(["a dog"], SearchOptions()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gone", "note"),
    [
        ({1, 3}, "2 of 3 hits could not be decoded and keep their scores"),
        ({1, 2, 3}, "3 of 3 hits could not be decoded and keep their scores"),
        (set(), ""),
    ],
)
def test_hits_that_can_not_be_decoded_are_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch, gone: set[int], note: str
) -> None:
    def frames(_store: Store, _space: str, clip_id: int) -> np.ndarray:
        if clip_id in gone:
            raise Unreadable(f"/{clip_id}.mp4 is gone")
        return np.zeros((8, 224, 224, 3), np.uint8)

    monkeypatch.setattr(module, "frames_of_clip", frames)
    ranked = [(hit(rank), rank) for rank in range(1, 5)]
    again, told = rerank(store, encoders.spec("xclip-base-patch32").space, exact(), "a dog", ranked, 3)
    assert told == note
    assert [clip_id for _, clip_id in again] == [*({1, 2, 3} - gone), *gone, 4]
    assert {clip_id: hit.score for hit, clip_id in again} == {
        n: 0.5 if n < 4 and n not in gone else 1 / n for n in range(1, 5)
    }


def test_a_command_tells_notes_on_standard_error_and_not_among_the_results(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = Answer("s", "a dog", "x", 0, 0, None, [], notes=["the index is broken", "1 of 2 hits"])
    monkeypatch.setattr("vidx.search.run.search", lambda *_: answer)
    arguments = ["a dog", "--store", str(store.path), "--format", "json"]
    run = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert run.stderr.splitlines() == answer.notes
    assert "notes" not in run.stdout
    assert "1 of 2" not in run.stdout
