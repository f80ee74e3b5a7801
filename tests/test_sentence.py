"""The sentence encoder in NumPy equals the original in torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from vidx import encoders
from vidx.encoders._sentence import SentenceEncoder

_IMAGE, TEXT, TOKENIZER = encoders.spec("conse").weights
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(TEXT.path is None, reason="needs the weights of the conse extra"),
]

# Other orders of summation and an error function good to 1.5e-7 in six layers.
TOLERANCE = 1e-5

TEXTS = [
    "a cat",
    "A CAT",
    "  a   cat\n",
    "",
    "?",
    "a person climbing stairs while it snows",
    "Ein Müller übergibt Äpfel",
    "日本語の文",
    "Это кошка",
    "🐈 😀 👩‍👩‍👧",
    "naïve café ﬁ ½ ™",
    "e\u0301 combining",
    "zero\u200bwidth \u202e right to left",
    "unbelievably antidisestablishmentarianism xqzv",
    "[CLS] [SEP] [PAD] [MASK] [UNK]",
    "don't stop-and-go, 3.14 % of #1!",
    "word " * 253,
    "word " * 254,
    "word " * 255,
    "word " * 2000,
    "x" * 5000,
]


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread() -> Iterator[None]:
    """As in `vidx search`: on a busy machine, threads wait for each other much longer than they work."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="module")
def ours() -> SentenceEncoder:
    assert TEXT.path is not None
    assert TOKENIZER.path is not None
    return SentenceEncoder(TEXT.path, TOKENIZER.path)


@pytest.fixture(scope="module")
def original() -> Any:
    """The published model as its own library runs it."""
    module = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    assert TEXT.path is not None
    return module.SentenceTransformer(str(TEXT.path.parent), device="cpu")


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20] + f" ({len(text)})")
def test_a_text_gets_the_vector_of_the_original(ours: SentenceEncoder, original: Any, text: str) -> None:
    np.testing.assert_allclose(ours.encode([text]), original.encode([text]), rtol=0, atol=TOLERANCE)


def test_a_batch_of_different_lengths_gets_the_vectors_of_the_original(ours: SentenceEncoder, original: Any) -> None:
    np.testing.assert_allclose(ours.encode(TEXTS), original.encode(TEXTS), rtol=0, atol=TOLERANCE)


@settings(deadline=None, max_examples=15)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_gets_the_vector_of_the_original(text: str, ours: SentenceEncoder, original: Any) -> None:
    np.testing.assert_allclose(ours.encode([text]), original.encode([text]), rtol=0, atol=TOLERANCE)


def test_vectors_have_length_one_and_single_precision(ours: SentenceEncoder) -> None:
    vectors = ours.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_order_and_company_of_texts_do_not_change_their_vectors(ours: SentenceEncoder) -> None:
    texts = TEXTS[:12]
    together = ours.encode(texts[::-1])[::-1]
    np.testing.assert_allclose(together, np.concatenate([ours.encode([text]) for text in texts]), rtol=0, atol=1e-6)


def test_equal_texts_of_one_batch_get_equal_vectors(ours: SentenceEncoder) -> None:
    vectors = ours.encode(["a cat", "a dog that barks", "a cat"])
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1], atol=0.1)


def test_no_texts_give_no_vectors(ours: SentenceEncoder) -> None:
    assert ours.encode([]).shape == (0, 384)


def test_words_behind_the_256th_token_do_not_count(ours: SentenceEncoder) -> None:
    cut = "word " * 254  # and two special tokens
    assert np.array_equal(ours.encode([cut]), ours.encode([cut + "banana " * 50]))
    assert not np.allclose(ours.encode(["word " * 253]), ours.encode(["word " * 253 + "banana"]), atol=1e-4)


def test_like_texts_are_nearer_than_unlike_ones(ours: SentenceEncoder) -> None:
    cat, kitten, invoice = ours.encode(["a cat on a sofa", "a kitten lying on the couch", "an unpaid tax invoice"])
    assert cat @ kitten > 0.5 > 0.2 > cat @ invoice
