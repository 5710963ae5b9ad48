"""What every text encoder is: texts in, one vector a text out."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rali_zoo.backbones.weights import RANDOM, weights_hash
from rali_zoo.errors import ConfigError

LongText = Literal["truncate", "chunk"]
_BATCH = 64
_MEMORY = 50_000  # vectors kept; 150 MB at 768 numbers each


class Windows(NamedTuple):
    """Texts cut into windows of at most the context length."""

    inputs: dict[str, Tensor]  #: each (n, L), one row a window, in the order of the texts
    owner: Tensor  #: (n,) index of the text that a window belongs to; ascending


class TextEncoder(nn.Module, ABC):
    """A text encoder; frozen, and then always in evaluation mode, until its parameters require gradients.

    Args:
        uri: the reference it was built from.
        dim: length T of a vector.
        long_text: what happens to texts beyond the context length.
        normalise: whether vectors are scaled to length 1 (as the model's own pipeline does).

    Attributes:
        revision: hash of the weights that were loaded, or ``"random"``.
    """

    _anchor: Tensor

    def __init__(self, uri: str, dim: int, long_text: LongText, normalise: bool) -> None:
        super().__init__()
        self.uri = uri
        self.dim = dim
        self.long_text = long_text
        self.normalise = normalise
        self.revision = RANDOM
        self._memory: dict[str, Tensor] = {}
        self._warned = False
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)  # knows the device
        self.register_load_state_dict_post_hook(_forget)

    @abstractmethod
    def windows(self, texts: list[str]) -> Windows:
        """Tokenise, with a further window wherever a text exceeds the context length."""

    @abstractmethod
    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Encode tokenised windows to (n, T)."""

    def freeze(self, loaded: bool) -> None:
        """End of construction: set the revision and freeze."""
        self.revision = weights_hash(self) if loaded else RANDOM
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> TextEncoder:
        """Training mode only for an encoder that is trained: dropout would make a frozen one random."""
        super().train(mode and self._trainable())
        return self

    def requires_grad_(self, requires_grad: bool = True) -> TextEncoder:
        """Freeze or unfreeze; vectors remembered until now are forgotten."""
        self._memory.clear()
        super().requires_grad_(requires_grad)
        return self

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode in one batch, with gradients where parameters require them.

        Args:
            texts: B texts.

        Returns:
            (B, T) float32.
        """
        vectors, cut = self._encode(_checked(texts))
        self._warn_once(cut, len(texts))
        return vectors

    def _encode(self, texts: list[str]) -> tuple[Tensor, int]:
        """Vectors, and how many texts were cut."""
        inputs, owner = self.windows(texts)
        cut = 0
        if self.long_text == "truncate":
            first = torch.ones_like(owner, dtype=torch.bool)
            first[1:] = owner[1:] != owner[:-1]
            cut = len(set(owner[~first].tolist()))
            inputs, owner = {key: value[first] for key, value in inputs.items()}, owner[first]
        device = self._anchor.device
        vectors = self.embed({key: value.to(device) for key, value in inputs.items()}).float()
        owner = owner.to(device)
        pooled = vectors.new_zeros(len(texts), self.dim).index_add(0, owner, vectors)
        pooled = pooled / torch.bincount(owner, minlength=len(texts)).unsqueeze(1)
        return (F.normalize(pooled, dim=1) if self.normalise else pooled), cut

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode any number of texts in batches, without gradients, each distinct text once.

        Vectors are remembered between calls while the encoder is frozen.

        Args:
            texts: B texts.

        Returns:
            (B, T) float32 on the encoder's device.
        """
        texts = _checked(texts)
        if not texts:
            return self._anchor.new_zeros(0, self.dim)
        memory = {} if self._trainable() else self._memory
        new = sorted({t for t in texts if t not in memory}, key=len)  # alike lengths need little padding
        if len(memory) + len(new) > _MEMORY:
            memory = {t: memory[t] for t in set(texts) if t in memory}
            self._memory = {}
        training = self.training
        self.eval()
        total = 0
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            vectors, cut = self._encode(batch)
            memory.update(zip(batch, vectors.cpu(), strict=True))
            total += cut
        self.train(training)
        self._warn_once(total, len(new))
        return torch.stack([memory[t] for t in texts]).to(self._anchor.device)

    def _trainable(self) -> bool:
        return any(p.requires_grad for p in self.parameters())

    def _warn_once(self, cut: int, total: int) -> None:
        if cut and not self._warned:
            self._warned = True
            warnings.warn(
                f"'{self.uri}': {cut} of {total} texts exceed the context length and are cut; "
                "the option long=chunk encodes them whole (this is said once)",
                stacklevel=3,
            )


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise ConfigError("a text encoder takes a list of texts, not one text; write [text]")
    return list(texts)


def _forget(encoder: nn.Module, keys: object) -> None:
    """Hook of ``load_state_dict``: other weights make other vectors."""
    if isinstance(encoder, TextEncoder):
        encoder._memory.clear()
