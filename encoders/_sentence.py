"""all-MiniLM-L6-v2 in NumPy: a six-layer BERT, mean over tokens, unit norm.

Architecture: Devlin et al. 2019 (arXiv:1810.04805), post-norm encoder with exact GELU; pooling: Reimers and Gurevych
2019 (arXiv:1908.10084), section 3. Loading torch or transformers for one query costs more than the query.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from tokenizers import Tokenizer

_HEADS = 12
_EPS = 1e-12
_AT_ONCE = 256  # texts; some 100 MB
_MAX_TOKENS = 256  # max_seq_length of the published model


def erf(x: np.ndarray) -> np.ndarray:
    """Error function to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26); importing SciPy's costs as long as the query."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    series = np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(coefficient)
    result: np.ndarray = np.copysign(1 - series * t * np.exp(-x * x), x)
    return result


class SentenceEncoder:
    """Texts to vectors."""

    def __init__(self, weights: Path, tokenizer: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._file = safe_open(str(weights), framework="numpy")
        self._words = self._file.get_slice("embeddings.word_embeddings.weight")
        names = self._file.keys()
        self._tensors = {name: self._file.get_tensor(name) for name in names if "word_embeddings" not in name}
        self._layers = 1 + max(int(name.split(".")[2]) for name in self._tensors if name.startswith("encoder.layer."))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (len(texts), 384), rows of unit norm. Texts of equal length in tokens go through together."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, tokens in enumerate(ids):
            by_length[len(tokens)].append(number)
        vectors = np.empty((len(ids), self._tensors["embeddings.position_embeddings.weight"].shape[1]), np.float32)
        for numbers in by_length.values():
            for at in range(0, len(numbers), _AT_ONCE):
                together = numbers[at : at + _AT_ONCE]
                vectors[together] = self._encode_equal([ids[number] for number in together])
        return vectors

    def _encode_equal(self, ids: list[list[int]]) -> np.ndarray:
        x = self._embed(ids)
        for layer in range(self._layers):
            prefix = f"encoder.layer.{layer}"
            x = self._norm(x + self._attention(x, f"{prefix}.attention"), f"{prefix}.attention.output.LayerNorm")
            inner = self._linear(x, f"{prefix}.intermediate.dense")
            inner *= np.float32(0.5) * (1 + erf(inner * np.float32(math.sqrt(0.5))))
            x = self._norm(x + self._linear(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
        mean = x.mean(axis=1)
        unit: np.ndarray = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit

    def _embed(self, ids: list[list[int]]) -> np.ndarray:
        words = {token: self._words[token : token + 1][0] for token in {token for row in ids for token in row}}
        x = np.stack([[words[token] for token in row] for row in ids])
        x = x + self._tensors["embeddings.position_embeddings.weight"][: x.shape[1]]
        return self._norm(x + self._tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")

    def _attention(self, x: np.ndarray, name: str) -> np.ndarray:
        batch, length, width = x.shape
        q, k, v = (
            self._linear(x, f"{name}.self.{part}").reshape(batch, length, _HEADS, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) / np.float32(math.sqrt(width // _HEADS))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
        return self._linear(mixed.transpose(0, 2, 1, 3).reshape(batch, length, width), f"{name}.output.dense")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        flat = (
            x.reshape(-1, x.shape[-1]) @ self._tensors[f"{name}.weight"].T
        )  # one product is faster than a batch of them
        result: np.ndarray = (flat + self._tensors[f"{name}.bias"]).reshape(*x.shape[:-1], -1)
        return result

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(_EPS))
        result: np.ndarray = centred / scale * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]
        return result
