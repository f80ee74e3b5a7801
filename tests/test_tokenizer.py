"""CLIP's tokenizer by the tokenizers library equals the original, and is quick to load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vidx.encoders._tokenizer import END, START, token_ids

# Neither half of a pair, nor what one library's Unicode tables know and the other's do not yet.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])
TEXTS = [
    "",
    " ",
    "\ufeff\u200b",
    "A Dog, in the   SNOW!\n",
    "don't 'S they'LL '\u017f I'm we'd've",
    "AT&amp;T &amp;lt;b&amp;gt; &EACUTE; &copy",
    "Ã¼ber cafÃ© â€œquotesâ€\x9d",
    "\x1b[31mred\x1b[0m \x00\x07bell",
    "İstanbul ﬁne ½ Ⅻ ⅻ ² x\u0345y ΣΑΣ",
    "日本語のテキスト 한국어 ไทย हिन्दी",
    "👩‍👩‍👧 🏳️‍🌈 1️⃣ 😀😀",
    "e\u0301 é a\u0300\u0301",
    "3.14 1,000 ١٢٣ x2y",
    "____ -- ... !?! <|startoftext|> <|endoftext|>",
    "\u2028line\u2029paragraph\x85next\x1cfile",
    "word" * 300,
]


@pytest.fixture(scope="module")
def original() -> Any:
    """The original in pure Python, as open_clip ships it."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def test_ids_are_those_of_the_original(shared: Path) -> None:
    expected = json.loads((shared / "reference" / "tokens.json").read_text())
    rows = expected["rows"]
    assert len(rows) == 108
    ids = token_ids([row["text"] for row in rows])
    assert ids.dtype == np.int64
    assert ids.tolist() == [row["ids"] + [0] * (77 - len(row["ids"])) for row in rows]
    assert token_ids([expected["too_long"]]).tolist() == [expected["truncated_ids"]]


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_an_awkward_text_has_the_ids_of_the_original(original: Any, text: str) -> None:
    assert token_ids([text]).tolist() == original([text]).tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(texts=st.lists(st.text(CHARACTERS, max_size=60), max_size=5))
@example(texts=["x\u0345 \u0345\u0345a"])
def test_any_text_has_the_ids_of_the_original(original: Any, texts: list[str]) -> None:
    assert token_ids(texts).tolist() == original(texts).tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(text=st.text(st.characters(max_codepoint=127), max_size=120), length=st.integers(2, 77))
@example(text="&amp;amp;lt;", length=77)
@example(text="a\x1b[0mb", length=77)
def test_plain_text_and_any_length_have_the_ids_of_the_original(original: Any, text: str, length: int) -> None:
    assert token_ids([text], length=length).tolist() == original([text], context_length=length).tolist()


@pytest.mark.slow
def test_every_character_has_the_ids_of_the_original(original: Any) -> None:
    import unicodedata

    codes = [code for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")]
    assert len(codes) > 100_000
    # Eight to a text, for the original is slow for each text; cut off is none of them.
    groups = [codes[at : at + 8] for at in range(0, len(codes), 8)]
    texts = [" ".join(f"x{chr(code)}1 {chr(code)}{chr(code)}a" for code in group) for group in groups]
    ids = token_ids(texts, length=256)
    assert not ids[:, -1].any()
    differ = np.flatnonzero((ids != original(texts, context_length=256).numpy()).any(axis=1))
    assert not [[hex(code) for code in groups[number]] for number in differ]


def test_a_text_too_long_keeps_its_first_tokens_and_an_end() -> None:
    whole = token_ids(["a dog and a cat"], length=7)[0].tolist()
    assert (whole[0], whole[-1], 0 in whole) == (START, END, False)
    assert token_ids(["a dog and a cat"], length=5).tolist() == [[*whole[:4], END]]
    with pytest.raises(ValueError, match="a text of 7 tokens is longer than 6"):
        token_ids(["a dog and a cat"], length=6, truncate=False)
    assert token_ids(["a dog and a cat"], length=7, truncate=False).tolist() == [whole]


def test_no_text_can_put_an_end_into_its_own_middle() -> None:
    for name in ("<end_of_text>", "<|endoftext|>", "<start_of_text>", "<|startoftext|>"):
        (ids,) = token_ids([f"a cat {name} a dog"]).tolist()
        assert ids.count(START) == ids.count(END) == 1


def test_no_texts_have_no_ids() -> None:
    assert token_ids([]).shape == (0, 77)


def test_ids_of_plain_text_need_neither_torch_nor_open_clip_nor_ftfy() -> None:
    code = """
import sys
from vidx.encoders._tokenizer import token_ids
token_ids(["a dog in the snow"])
assert not {"torch", "open_clip", "ftfy", "transformers"} & sys.modules.keys()
token_ids(["caf\\u00e9"])
assert "ftfy" in sys.modules and "torch" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
