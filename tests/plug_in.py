"""A package installed into a temporary folder, as pip would do it: entry points that our tables read."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write what pip would for the ``pyproject.toml`` in a folder; tables forget it after the test."""
    from rali_zoo.backbones import BACKBONES
    from rali_zoo.baselines import BASELINES
    from rali_zoo.data.registry import DATASETS, GENERIC
    from rali_zoo.models import NETWORKS
    from rali_zoo.rl.rewards import REWARDS
    from rali_zoo.text import TEXT_ENCODERS
    from rali_zoo.trainers import TRAINERS

    content = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    target = folder / f"{content['name'].replace('-', '_')}-{content['version']}.dist-info"
    target.mkdir()
    (target / "METADATA").write_text(f"Name: {content['name']}\nVersion: {content['version']}\n")
    groups = content["entry-points"].items()
    text = "\n".join(f"[{g}]\n" + "\n".join(f"{k} = {v}" for k, v in rows.items()) for g, rows in groups)
    (target / "entry_points.txt").write_text(text)
    monkeypatch.syspath_prepend(folder)
    for table in (DATASETS, GENERIC, BACKBONES, TEXT_ENCODERS, NETWORKS, TRAINERS, BASELINES, REWARDS):
        monkeypatch.setattr(table, "_rows", dict(table._rows))
        monkeypatch.setattr(table, "_plugins_read", False)
