"""``rali-zoo show``: one data set, backbone, text encoder or model in detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.uri import split_options

if TYPE_CHECKING:
    from torch import nn

    from rali_zoo.backbones.base import Backbone
    from rali_zoo.data.card import DatasetCard
    from rali_zoo.views import View


def command(ref: str, /, pretrained: bool = False) -> None:
    """Show one data set, backbone, text encoder or model.

    Args:
        ref: its reference: koniq10k, timm:resnet18, st:all-MiniLM-L6-v2, ckpt:runs/NAME/checkpoints/best.ckpt
        pretrained: for a backbone: load its weights too, and show their revision.
    """
    from rali_zoo.backbones import BACKBONES
    from rali_zoo.data.registry import GENERIC, list_cards
    from rali_zoo.text import TEXT_ENCODERS
    from rali_zoo.zoo import BASELINES, RUNTIMES, SCHEMES, list_models

    head = split_options(ref)[0]
    scheme = head.partition(":")[0] if ":" in head else ""
    cards = {card.name: card for card in list_cards()}
    models = list_models()
    if head in cards:
        _rows(_card_rows(cards[head]))
    elif scheme in GENERIC:
        _show_table(ref)
    elif _is_text_encoder(head):
        _show_text(ref)
    elif scheme in BACKBONES:
        _show_backbone(ref, pretrained)
    elif scheme in (scorers := (*SCHEMES, *RUNTIMES, *BASELINES)) or head in models:
        _show_model(ref)
    elif not scheme and head.endswith(".csv"):
        raise ConfigError(f"{ref!r} is a path; the scores in a file are the data set 'csv:{ref}'")
    else:
        schemes = [f"{name}:…" for name in dict.fromkeys([*GENERIC, *BACKBONES, *TEXT_ENCODERS, *scorers])]
        raise UnknownNameError("reference", ref, [*cards, *models, *schemes])


def _is_text_encoder(head: str) -> bool:
    """Whether a reference can only be a text encoder; CLIP's names stand for both encoders."""
    from rali_zoo.backbones import BACKBONES
    from rali_zoo.text import TEXT_ENCODERS

    scheme, _, name = head.partition(":")
    if scheme not in TEXT_ENCODERS or scheme not in BACKBONES:
        return scheme in TEXT_ENCODERS
    return name in TEXT_ENCODERS[scheme].names() and name not in BACKBONES[scheme].names()


def _rows(rows: Sequence[tuple[str, object]]) -> None:
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        lines = str(value).strip().splitlines() or [""]
        print(f"{name:{width}}{lines[0]}")
        for line in lines[1:]:
            print(" " * width + line)


def _card_rows(card: DatasetCard) -> list[tuple[str, object]]:
    task = "no-reference" if card.task == "NR" else "full-reference"
    direction = "higher is better" if card.higher_is_better else "lower is better (DMOS); flipped here"
    label = "  ** SYNTHETIC: labels come from a rule, no human was asked **" if card.synthetic else ""
    protocols = [f"{name} (default)" if name == card.default_protocol else name for name in card.protocols]
    return [
        ("name", card.name + label),
        ("title", card.title),
        ("task", f"{card.task} ({task}), {card.domain}"),
        ("images", f"{card.n_images:,}"),
        ("scores", f"{card.mos_range[0]:g} to {card.mos_range[1]:g}, {direction}; [1, 5] in this package"),
        ("splits", ", ".join(protocols) + ("; contents kept apart" if card.content_disjoint else "")),
        ("licence", card.licence),
        ("citation", card.citation),
        ("get it", card.url),
        ("layout", card.layout),
        *([("note", card.note)] if card.note else []),
    ]


def _show_table(ref: str) -> None:
    from rali_zoo.data.tables import load_table

    table = load_table(ref, "data")
    rows = _card_rows(table.card)
    counts = table.frame["split"].value_counts()
    mos = table.frame["mos"]
    rows += [
        (
            "rows",
            ", ".join(f"{counts[split]:,} {split}" for split in ("train", "val", "test") if split in counts),
        ),
        (
            "MOS",
            f"mean {mos.mean():.2f}, std {mos.std():.2f}, {mos.min():.2f} to {mos.max():.2f} on [1, 5]",
        ),
    ]
    _rows(rows)


def _parameters(module: nn.Module) -> str:
    count = sum(p.numel() for p in module.parameters())
    return f"{count / 1e6:.2f} M"


def _backbone_rows(backbone: Backbone) -> list[tuple[str, object]]:
    p = backbone.preprocess
    size = f"{p.size[0]} x {p.size[1]} (height x width)" if p.resize != "none" else "native pixels"
    return [
        ("backbone", backbone.uri),
        ("revision", backbone.revision),
        ("parameters", _parameters(backbone)),
        ("pooled", f"{backbone.dim} features"),
        ("tokens", f"{backbone.token_dim} features each"),
        ("input", f"{size}, {p.resize}, {p.interpolation}"),
        ("mean", ", ".join(f"{v:g}" for v in p.mean)),
        ("std", ", ".join(f"{v:g}" for v in p.std)),
    ]


def _show_backbone(ref: str, pretrained: bool) -> None:
    from rali_zoo.backbones import create_backbone

    rows = _backbone_rows(create_backbone(ref, pretrained=pretrained))
    if not pretrained:
        rows = [(n, "not loaded; add --pretrained=true" if n == "revision" else v) for n, v in rows]
    _rows(rows)


def _show_text(ref: str) -> None:
    from rali_zoo.text import create_text_encoder

    encoder = create_text_encoder(ref)
    _rows(
        [
            ("text encoder", encoder.uri),
            ("revision", encoder.revision),
            ("parameters", _parameters(encoder)),
            ("embedding", f"{encoder.dim} features"),
        ]
    )


def _view(view: View) -> str:
    """A view in words: ``backbone``; ``grid, 224 pixels, 5 crops``."""
    parts = [view.kind.replace("_", " ")]
    parts += [f"{view.size} pixels"] * (view.size is not None) + [f"{view.crops} crops"] * (view.crops > 1)
    return ", ".join([*parts, *["mirrored at random"] * view.flip])


def _show_model(ref: str) -> None:
    from rali_zoo.models.base import BackboneNetwork
    from rali_zoo.models.scorer import NetworkScorer
    from rali_zoo.zoo import load_model

    scorer = load_model(ref)
    sets = scorer.training_sets
    rows: list[tuple[str, object]] = [
        ("model", ref),
        ("revision", scorer.revision),
        ("trained on", "unknown" if sets is None else ", ".join(sets) or "nothing"),
    ]
    if isinstance(scorer, NetworkScorer):
        model = scorer.network
        rows += [
            ("class", type(model).__name__),
            ("parameters", _parameters(model)),
            ("view", _view(model.view)),
        ]
        if isinstance(model, BackboneNetwork):
            known = ("revision", "parameters")
            rows += [row for row in _backbone_rows(model.backbone) if row[0] not in known]
        else:
            rows.append(("vision-language model", model.settings.get("vlm", "")))
    _rows(rows)
