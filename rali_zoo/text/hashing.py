"""``rali:hash``: hashed words and word pairs through a fixed random projection. No model, nothing learned.

For tests and for telling apart texts that share no words; it knows no synonyms. The same text gives the same
vector on every machine: its signs are bits of SHAKE-128 of each word. Option ``dim`` (default 256).
"""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rali_zoo.backbones.options import integer
from rali_zoo.errors import UnknownNameError
from rali_zoo.text.base import TextEncoder, Windows
from rali_zoo.uri import Uri


class HashEncoder(TextEncoder):
    """Sum of one fixed vector of signs for each word and word pair, scaled to length 1 (0 for no words)."""

    def __init__(self, uri: str, dim: int) -> None:
        super().__init__(uri, dim, "truncate", normalise=True)
        self._vectors: dict[str, np.ndarray] = {}
        self.revision = f"v1-{dim}"

    def windows(self, texts: list[str]) -> Windows:
        """Sums of the vectors of all words: there is no context length."""
        sums = np.stack([self._sum(text) for text in texts]).astype(np.float32)
        return Windows({"sums": torch.from_numpy(sums)}, torch.arange(len(texts)))

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, T), not yet of length 1."""
        return inputs["sums"]

    def _sum(self, text: str) -> np.ndarray:
        words = re.findall(r"\w+", text.lower())
        grams = [*words, *(" ".join(pair) for pair in pairwise(words))]
        return sum((self._vector(gram) for gram in grams), np.zeros(self.dim))

    def _vector(self, gram: str) -> np.ndarray:
        if gram not in self._vectors:
            digest = hashlib.shake_128(gram.encode()).digest(-(-self.dim // 8))
            bits = np.unpackbits(np.frombuffer(digest, np.uint8), count=self.dim)
            self._vectors[gram] = 2.0 * bits - 1.0
        return self._vectors[gram]


def create(uri: Uri) -> TextEncoder:
    """Build ``uri``; see :func:`rali_zoo.text.create_text_encoder`."""
    options = uri.take(["dim"])
    if uri.id not in names():
        raise UnknownNameError("rali text encoder", uri.id, names())
    return HashEncoder(str(uri), integer(uri, "dim", options.get("dim", "256"), 1))


def names() -> list[str]:
    """Ids of the family."""
    return ["hash"]
