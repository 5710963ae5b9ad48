"""Text encoders by URI: ``open_clip:``, ``hf:``, ``st:`` (sentence-transformers) and our own ``rali:``.

A row of :data:`TEXT_ENCODERS` is a module with two functions: ``create(uri: Uri) -> TextEncoder`` and
``names() -> list[str]`` (ids that can be listed, without the scheme). This file imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rali_zoo.registry import Table
from rali_zoo.uri import parse_uri

if TYPE_CHECKING:
    from rali_zoo.text.base import TextEncoder

TEXT_ENCODERS = Table(
    "text encoder scheme",
    "rali_zoo.text_encoders",
    {
        "hf": "rali_zoo.text.hf",
        "open_clip": "rali_zoo.text.open_clip",
        "rali": "rali_zoo.text.hashing",
        "st": "rali_zoo.text.sentence_transformers",
    },
    needs=("create", "names"),
)


def create_text_encoder(uri: str) -> TextEncoder:
    """Build a text encoder with its weights; they are frozen until ``requires_grad_(True)``.

    Args:
        uri: reference such as ``st:all-MiniLM-L6-v2``, ``open_clip:ViT-L-14-336/openai``, ``hf:org/repo@rev``
            or ``rali:hash``. The option ``long=truncate`` (default) drops what exceeds the context length
            of the encoder, and says so once; ``long=chunk`` encodes it window by window and takes the mean.

    Raises:
        UriError: unknown scheme or option, or an option's value that cannot be read.
        UnknownNameError: the library has no such model.
        CheckpointError: the weights cannot be fetched or read.
    """
    parsed = parse_uri(uri, TEXT_ENCODERS, "text encoder")
    return TEXT_ENCODERS[parsed.scheme].create(parsed)


def list_text_encoders() -> list[str]:
    """References of the text encoders that can be built by name (the hub has many more)."""
    return [f"{scheme}:{name}" for scheme in TEXT_ENCODERS for name in TEXT_ENCODERS[scheme].names()]
