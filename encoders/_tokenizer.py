"""CLIP's byte pairs over lower-cased text (Radford et al. 2021, arXiv:2103.00020; openai/CLIP, simple_tokenizer.py).

The vocabulary is read from the installed open_clip package, which is not imported: that would cost seconds.
"""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from functools import cache

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as InOrder

from vidx.encoders._weights import checked, in_package

START, END = 49406, 49407
LENGTH = 77  # of the texts that every CLIP was trained with

VOCABULARY = in_package(
    "open_clip",
    "bpe_simple_vocab_16e6.txt.gz",
    sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
    size_bytes=1_356_917,
    source="install open_clip_torch, which holds CLIP's vocabulary",
)
_MERGES = slice(1, START - 512 + 1)  # lines of the file; 256 bytes within and 256 at the end of a word come before
# U+0345 counts for nothing: in the original, which ignores case, no class of characters matches it.
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"


def token_ids(texts: Sequence[str], *, length: int = LENGTH, truncate: bool = True) -> np.ndarray:
    """int64 (len(texts), length): start token, text, end token, zeros.

    Of a longer text the first `length` ids, the last of them made the end token; without `truncate` ValueError. The
    names of the special tokens mean nothing within a text. Raises WeightsMissing or WeightsAltered for the vocabulary.
    """
    ids = np.zeros((len(texts), length), np.int64)
    for row, encoding in zip(ids, _tokenizer().encode_batch([_cleaned(text) for text in texts]), strict=True):
        tokens = [START, *encoding.ids, END]
        if len(tokens) > length and not truncate:
            raise ValueError(f"a text of {len(tokens)} tokens is longer than {length}")
        row[: len(tokens)] = tokens[:length]
        row[min(len(tokens), length) - 1] = END
    return ids


def _cleaned(text: str) -> str:
    """The text as the vocabulary knows it: mended, HTML's escapes undone twice, single spaces, lower case."""
    # Nothing is to be mended in plain ASCII. ftfy undoes escapes and control codes, too; importing it costs 0.1 s.
    if not (text.isascii() and text.isprintable() and "&" not in text):
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@cache
def _tokenizer() -> Tokenizer:
    lines = gzip.decompress(checked(VOCABULARY, "clip").read_bytes()).decode().split("\n")
    merges = [(first, second) for first, second in (line.split() for line in lines[_MERGES])]
    letters = _byte_letters()
    symbols = [*letters, *(letter + "</w>" for letter in letters), *(first + second for first, second in merges)]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    words = Split(Regex(_WORD), "removed", invert=True)
    tokenizer.pre_tokenizer = InOrder([words, ByteLevel(add_prefix_space=False, use_regex=False)])
    return tokenizer


def _byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes, in the vocabulary's order: those that can be seen, then the others."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in visible] + [chr(256 + number) for number in range(256 - len(visible))]
