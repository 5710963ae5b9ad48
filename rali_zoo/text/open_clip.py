"""Text encoders of open_clip: ``open_clip:ARCH/TAG``, ``open_clip:hf-hub:…``, ``open_clip:local-dir:FOLDER``.

Vectors are what CLIP compares with images: after the projection, not normalised to length 1. open_clip
builds both towers; the visual tower is let go at once. ``pretrained=false`` gives random weights (for tests).
"""

from __future__ import annotations

from typing import Any, cast

import open_clip
import torch
from torch import Tensor, nn

from rali_zoo.backbones.open_clip import build, find, loading, names
from rali_zoo.backbones.options import choice, flag
from rali_zoo.text.base import LongText, TextEncoder, Windows
from rali_zoo.uri import Uri

__all__ = ["OpenClipText", "create", "names"]


class OpenClipText(TextEncoder):
    """The text encoder of a CLIP model, any of open_clip's kinds.

    Args:
        net: a model of open_clip without its vision encoder.
        tokenizer: as ``open_clip.get_tokenizer`` gives it.
    """

    def __init__(
        self,
        net: nn.Module,
        tokenizer: open_clip.SimpleTokenizer | open_clip.tokenizer.HFTokenizer,
        uri: str,
        dim: int,
        long_text: LongText,
    ) -> None:
        super().__init__(uri, dim, long_text, normalise=False)
        self.net: Any = net
        self._tokenizer = tokenizer

    def windows(self, texts: list[str]) -> Windows:
        """Tokenise; longer texts are cut between words."""
        cut = [self._cut(text) for text in texts]
        owner = torch.tensor([i for i, pieces in enumerate(cut) for _ in pieces])
        return Windows({"text": self._tokenizer([piece for pieces in cut for piece in pieces])}, owner)

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Encode token ids (n, context length) to (n, T)."""
        return self.net.encode_text(inputs["text"])

    def _length(self, text: str) -> int:
        """Number of tokens with the special ones."""
        inner = getattr(self._tokenizer, "tokenizer", None)
        if inner is None:
            return len(self._tokenizer.encode(text)) + 2
        return len(inner(self._tokenizer.clean_fn(text)).input_ids)

    def _cut(self, text: str) -> list[str]:
        limit = self._tokenizer.context_length
        if self._length(text) <= limit:
            return [text]
        pieces = [""]
        for word in text.split():
            longer = f"{pieces[-1]} {word}".strip()
            if self._length(longer) <= limit:
                pieces[-1] = longer
            elif pieces[-1]:
                pieces.append(word)
            else:
                pieces[-1] = word  # one word beyond the context: the tokenizer cuts it
        return pieces


def create(uri: Uri) -> TextEncoder:
    """Build ``uri``; see :func:`rali_zoo.text.create_text_encoder`."""
    options = uri.take(["long", "pretrained"])
    long_text = cast("LongText", choice(uri, "long", options.get("long", "truncate"), ("truncate", "chunk")))
    weights = flag(uri, "pretrained", options.get("pretrained", "true"))
    source = find(uri, needs_tag=weights)
    net = build(uri, source, weights)
    net.visual = nn.Identity()
    with loading(uri, "open_clip's tokenizer"):
        tokenizer = open_clip.get_tokenizer(source.model)
    dim = open_clip.get_model_config(source.model)["embed_dim"]
    encoder = OpenClipText(net, tokenizer, str(uri), dim, long_text)
    encoder.freeze(loaded=weights)
    return encoder
