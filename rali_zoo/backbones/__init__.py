"""Image encoders by URI: ``open_clip:``, ``timm:``, ``hf:`` and our own ``rali:``.

A row of :data:`BACKBONES` is a module with two functions: ``create(uri: Uri, pretrained: bool) -> Backbone``
and ``names() -> list[str]`` (ids that can be listed, without the scheme). This file imports no torch.
"""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from rali_zoo.registry import Table
from rali_zoo.uri import parse_uri

if TYPE_CHECKING:
    from rali_zoo.backbones.base import Backbone

BACKBONES = Table(
    "backbone scheme",
    "rali_zoo.backbones",
    {
        "hf": "rali_zoo.backbones.hf",
        "open_clip": "rali_zoo.backbones.open_clip",
        "rali": "rali_zoo.backbones.tiny",
        "timm": "rali_zoo.backbones.timm",
    },
    needs=("create", "names"),
)


def create_backbone(uri: str, pretrained: bool = True) -> Backbone:
    """Build an image encoder.

    Args:
        uri: reference such as ``open_clip:ViT-L-14-336/openai``, ``timm:resnet50.a1_in1k``,
            ``hf:org/repo@rev`` or ``rali:tiny``; :mod:`rali_zoo.backbones.options` lists its options.
        pretrained: false builds random weights whatever the reference says, for a caller that is about to
            load a state dict of its own. The library's config (hub or folder) is still read.

    Raises:
        UriError: unknown scheme or option, or an option's value that cannot be read.
        UnknownNameError: the library has no such model.
        CheckpointError: the weights cannot be fetched, read, or do not fit.
    """
    parsed = parse_uri(uri, BACKBONES, "backbone")
    return BACKBONES[parsed.scheme].create(parsed, pretrained)


def list_backbones(pattern: str | None = None) -> list[str]:
    """References of the image encoders that can be built by name (the hub has many more).

    Args:
        pattern: shell-style pattern over the whole reference (``timm:*dinov2*``); without ``*``, ``?`` or
            ``[`` it is a part of it. A pattern that begins with a scheme imports only that library.
    """
    glob = pattern if pattern and any(c in pattern for c in "*?[") else f"*{pattern or ''}*"
    head = (pattern or "").partition(":")[0]
    schemes = [head] if pattern and ":" in pattern and head in BACKBONES else list(BACKBONES)
    found = [f"{scheme}:{name}" for scheme in schemes for name in BACKBONES[scheme].names()]
    return [uri for uri in found if fnmatch.fnmatchcase(uri.lower(), glob.lower())]
