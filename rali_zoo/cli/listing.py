"""``rali-zoo list``: what there is. Nothing heavy is imported unless a pattern asks for a library's names."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Literal

Kind = Literal["all", "datasets", "backbones", "text", "models", "rewards"]


def command(kind: Kind = "all", /, pattern: str | None = None) -> None:
    """List data sets, backbones, text encoders, models and rewards.

    Args:
        kind: what to list.
        pattern: shell pattern or part of a name (timm:vit*, koniq). Backbones are listed by name only with
            a pattern, text encoders only on request: asking the libraries takes seconds.
    """
    if kind in ("all", "datasets"):
        _datasets(pattern)
    if kind in ("all", "backbones"):
        _backbones(pattern if kind == "backbones" else None)
    if kind in ("all", "text"):
        _text(pattern, by_name=kind == "text")
    if kind in ("all", "models"):
        _models(pattern)
    if kind == "rewards":
        _rewards(pattern)


def matches(name: str, pattern: str | None) -> bool:
    """Whether ``name`` fits a shell pattern, or holds it where it has no ``*?[``; ``None`` fits all."""
    if pattern is None:
        return True
    glob = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    return fnmatch.fnmatchcase(name.lower(), glob.lower())


def _datasets(pattern: str | None) -> None:
    from rali_zoo.data.registry import GENERIC, list_cards

    print("Data sets:")
    for card in list_cards():
        if matches(card.name, pattern):
            low, high = card.mos_range
            scale = f"{low:.4g} to {high:.4g}" + ("" if card.higher_is_better else " (DMOS)")
            domain = "synthetic" if card.synthetic else card.domain
            print(f"  {card.name:18}{card.task:4}{domain:12}{card.n_images:>8,} images, scores {scale}")
            print(f"{'':20}licence: {card.licence}")  # whole: whether one may use it depends on it
    print(f"Your own scores: {', '.join(f'{scheme}:PATH' for scheme in GENERIC if scheme != 'synthetic')}")
    print("More of one: rali-zoo show NAME\n")


def _backbones(pattern: str | None) -> None:
    from rali_zoo.backbones import BACKBONES, list_backbones

    if pattern is None:
        print("Backbones: " + ", ".join(f"{scheme}:…" for scheme in BACKBONES))
        print("By name: rali-zoo list backbones --pattern 'timm:vit*'\n")
        return
    _print_names(list_backbones(pattern), f"backbone matches {pattern!r}")


def _text(pattern: str | None, by_name: bool) -> None:
    from rali_zoo.text import TEXT_ENCODERS, list_text_encoders

    if not by_name:
        print("Text encoders: " + ", ".join(f"{scheme}:…" for scheme in TEXT_ENCODERS))
        print("By name: rali-zoo list text\n")
        return
    names = [name for name in list_text_encoders() if matches(name, pattern)]
    _print_names(names, f"text encoder matches {pattern!r}")


def _models(pattern: str | None) -> None:
    from rali_zoo.zoo import list_models

    print("Models:")
    _print_names([name for name in list_models() if matches(name, pattern)], f"model matches {pattern!r}")
    print("Your own: ckpt:runs/NAME/checkpoints/best.ckpt")


def _rewards(pattern: str | None) -> None:
    """Rewards of reinforcement with their options, as ``model.rewards`` and ``model.reward_options`` take them."""
    from rali_zoo.rl.rewards import REWARDS, options_of

    lines = []
    for name in (name for name in REWARDS if matches(name, pattern)):
        options = ", ".join(str(option).replace("'", "") for option in options_of(name).values())
        lines += [f"{name}({options})", f"    {(REWARDS[name].__doc__ or '').partition(chr(10))[0]}"]
    _print_names(lines, f"reward matches {pattern!r}")


def _print_names(names: Sequence[str], none: str) -> None:
    for name in names:
        print(f"  {name}")
    if not names:
        print(f"  no {none}")
