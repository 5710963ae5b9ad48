"""The frozen text encoder of RALI's alignment: every text is embedded once, then looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rali_zoo.text.base import TextEncoder


class Teacher:
    """A table of text embeddings. It is no module: nothing of it belongs in a checkpoint.

    Args:
        uri: text encoder.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._encoder: TextEncoder | None = None
        self.ids: dict[str, int] = {}
        self.table = torch.zeros(0, 0)

    @property
    def encoder(self) -> TextEncoder:
        """The encoder, loaded on first use."""
        if self._encoder is None:
            from rali_zoo.text import create_text_encoder  # scoring never needs it

            self._encoder = create_text_encoder(self.uri)
        return self._encoder

    @property
    def dim(self) -> int:
        """Width T of the embeddings."""
        return self.encoder.dim

    def release(self) -> TextEncoder:
        """Hand the encoder over to be trained, with gradients."""
        return self.encoder.requires_grad_(True)

    def learn(
        self,
        texts: Mapping[tuple[str, str], Sequence[str]],
        device: torch.device,
        encoder: TextEncoder | None = None,
    ) -> None:
        """Embed every distinct text of a training set, with another encoder than the frozen one if given."""
        distinct = sorted({text for several in texts.values() for text in several})
        self.ids = {text: i for i, text in enumerate(distinct)}
        self.table = (encoder or self.encoder).to(device).encode(distinct).float().cpu()

    def look_up(self, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """Embeddings (B, T) of known texts, and their numbers (B,): equal where the texts are equal."""
        ids = torch.tensor([self.ids[text] for text in texts])
        return self.table[ids].to(device), ids.to(device)

    def mean_of(
        self, texts: Mapping[tuple[str, str], Sequence[str]], keys: Sequence[tuple[str, str]]
    ) -> Tensor:
        """Mean embedding (N, T) of each image's texts."""
        return torch.stack([self.table[[self.ids[t] for t in texts[key]]].mean(0) for key in keys])
