"""Every yaml below configs/ runs through the real command line; the folder is globbed, none is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from rali_zoo.cli.main import main

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
NAMES = [str(p.relative_to(p.parents[1])) for p in CONFIGS]


def biq2021(root: Path, photo: Callable[..., np.ndarray]) -> None:
    """BIQ2021 as the config reads it, with 24 pictures."""
    folder = root / "biq2021" / "images"
    folder.mkdir(parents=True)
    rows = []
    for i in range(24):
        name = f"ss01_{i:05d}.jpg"
        Image.fromarray(photo(40, 40, seed=i)).save(folder / name)
        rows.append({"image": f"images/{name}", "mos": i / 30, "split": "test" if i % 4 == 0 else "train"})
    pd.DataFrame(rows).to_csv(root / "biq2021" / "scores.csv", index=False)


def koniq10k(root: Path, photo: Callable[..., np.ndarray]) -> None:
    """KonIQ-10k in its own layout, with 24 pictures."""
    folder = root / "koniq10k" / "1024x768"
    folder.mkdir(parents=True)
    names = [f"{1000 + i}.jpg" for i in range(24)]
    for i, name in enumerate(names):
        Image.fromarray(photo(48, 64, seed=i)).save(folder / name)
    sets = ["training", "training", "validation", "test"] * 6
    mos = np.linspace(1.2, 4.4, 24)
    scores = {"image_name": names, "MOS": mos, "SD": 0.5, "set": sets}
    counts = {f"c{i}": 20 for i in range(1, 6)} | {"c_total": 100, "MOS_zscore": 20 * mos}
    frame = pd.DataFrame({**scores, **counts})
    frame.drop(columns="set").to_csv(root / "koniq10k" / "koniq10k_scores_and_distributions.csv", index=False)
    frame.to_csv(root / "koniq10k" / "koniq10k_distributions_sets.csv", index=False)


MAKERS = {"biq2021": biq2021, "koniq10k": koniq10k}


def shrink(config: dict[str, Any]) -> list[str]:
    """Options that swap what cannot be had in a test: the weights of large networks and their teachers."""
    args = config["model"]["init_args"]
    words = []
    if "vlm" in args:
        words += ["--trainer.strategy=auto", "--trainer.devices=1"]
        settings = {
            "vlm": "rali:vlm-tiny?image_size=32&width=32&layers=1&grid=2", "init_from": "null",
            "vision_from": "null", "grpo.max_completion_length": "8", "sampling.rollouts": "2",
        }  # fmt: skip
        return [*words, *(f"--model.init_args.{name}={value}" for name, value in settings.items())]
    if not args["backbone"].startswith("rali:"):
        words.append("--model.init_args.backbone=timm:vit_tiny_patch16_224?pretrained=false&size=32")
    if "text_encoder" in args:
        words.append("--model.init_args.text_encoder=rali:hash")
    if args.get("projector") == "none":
        words.append("--model.init_args.projector=linear")
    if str(config["data"].get("descriptions")).endswith(".parquet"):
        words.append("--data.descriptions=attributes?mos_words=true")
    return words


def _listed(refs: str | list[str]) -> list[str]:
    return [refs] if isinstance(refs, str) else refs


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_config_runs(path, tmp_path, photo, monkeypatch):
    config = yaml.safe_load(path.read_text())
    for ref in _listed(config["data"]["train"]):
        if ref in MAKERS:
            MAKERS[ref](tmp_path / "data", photo)
    monkeypatch.chdir(tmp_path)
    words = [
        *("fit", "--config", str(path), "--trainer.fast_dev_run=2", "--trainer.accelerator=cpu"),
        *(
            "--trainer.precision=32-true",
            "--data.batch_size=6",
            "--data.num_workers=0",
            "--data.pin_memory=false",
        ),
        *("--data.root=data", *shrink(config)),
    ]
    if any(ref.startswith("synthetic:") for ref in _listed(config["data"]["train"])):
        words += [f"--data.{role}=synthetic:lab?n=60&size=64" for role in ("train", "test")]
        words += ["--data.train_view.size=48"]
    assert main(words) == 0
    assert not list(tmp_path.glob("*.yaml")), "a run writes nothing into the working directory"


def test_koniq_config_resolves_as_it_is(capsys):
    path = next(p for p in CONFIGS if p.name == "koniq10k_vit_l_14_336.yaml")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(path), "--print_config"])
    assert stop.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["backbone"] == "open_clip:ViT-L-14-336/openai"
    assert printed["model"]["init_args"]["prototypes"] == 250
    assert printed["data"]["train"] == "koniq10k"
