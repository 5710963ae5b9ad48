"""Every yaml below configs/ runs through the real command line; the folder is globbed, none is forgotten."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from rali_zoo.cli.main import main
from rali_zoo.data.calibration import Scale, write_calibration

RECIPES = sorted((Path(__file__).parents[1] / "configs" / "pipelines").glob("*.yaml"))
TRL = sorted((Path(__file__).parents[1] / "configs").rglob("trl_*.yaml"))  # for rali-zoo trl
CONFIGS = sorted(set((Path(__file__).parents[1] / "configs").rglob("*.yaml")) - set(RECIPES) - set(TRL))
NAMES = [str(p.relative_to(p.parents[1])) for p in CONFIGS]


def biq2021(root: Path, photo: Callable[..., np.ndarray]) -> None:
    """BIQ2021 as the config reads it, with 24 images."""
    folder = root / "biq2021" / "images"
    folder.mkdir(parents=True)
    rows = []
    for i in range(24):
        name = f"ss01_{i:05d}.jpg"
        Image.fromarray(photo(40, 40, seed=i)).save(folder / name)
        rows.append({"image": f"images/{name}", "mos": i / 30, "split": "test" if i % 4 == 0 else "train"})
    pd.DataFrame(rows).to_csv(root / "biq2021" / "scores.csv", index=False)


def koniq10k(root: Path, photo: Callable[..., np.ndarray]) -> None:
    """KonIQ-10k in its own layout, with 24 images."""
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
#: Images of the fixtures by data set that DeQA's lists train on and test on.
DEQA = {
    "spaq": (["00001.jpg", "00002.jpg"], ["00003.jpg"]),
    "kadid10k": (["I01_01_01.png", "I01_10_05.png", "I02_11_03.png"], ["I81_25_04.png"]),
    "pipal": (["A0001_00_01.bmp", "A0001_05_12.bmp", "A0248_06_26.bmp"], ["A0001_00_00.bmp"]),
}


def make_data(refs: list[str], root: Path, photo: Callable[..., np.ndarray]) -> None:
    """The data sets of references, in their authors' formats, with a few images each."""
    place = Path(__file__).parent / "data" / "reader_fixtures.py"
    spec = importlib.util.spec_from_file_location("reader_fixtures", place)
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    for ref in dict.fromkeys(refs):
        name, _, options = ref.partition("?")
        if name == "csv:ratings.csv":
            biq2021(root, photo)
            table = pd.read_csv(root / "biq2021" / "scores.csv")
            table.assign(image="data/biq2021/" + table["image"], mos=1 + 4 * table["mos"]).to_csv(
                "ratings.csv", index=False
            )
        elif name in MAKERS and not options:
            MAKERS[name](root, photo)
        elif name in fixtures.MAKERS:
            fixtures.make(name, root)
            if name in DEQA:
                fixtures.deqa_lists(root / name / "metas", *DEQA[name], name)


def shrink(config: dict[str, Any]) -> list[str]:
    """Options that swap what cannot be had in a test: the weights of large networks and their teachers."""
    args = config["model"]["init_args"]
    words = []
    if "vlm" in args:
        words += ["--trainer.strategy=auto", "--trainer.devices=1"]
        settings = {
            "vlm": "rali:vlm-tiny?image_size=32&width=32&layers=1&grid=2", "init_from": "null",
            "vision_from": "null",
        }  # fmt: skip
        if config["model"]["class_path"] == "RACT":
            settings["max_completion_length"] = "8"
        else:
            settings |= {"grpo.max_completion_length": "8", "sampling.rollouts": "2"}
        words += (f"--model.init_args.{name}={value}" for name, value in settings.items())
        return words + _texts(config)
    if args["backbone"].startswith("rali:efficientnet-lite"):
        backbone = args["backbone"].replace("weights=package&", "").replace("size=384", "size=64")
        words += [f"--model.init_args.backbone={backbone}"]
        words += ["--model.init_args.init_from=null"] if "init_from" in args else []
    elif not args["backbone"].startswith("rali:"):
        words.append("--model.init_args.backbone=timm:vit_tiny_patch16_224?pretrained=false&size=32")
    if "text_encoder" in args:
        words.append("--model.init_args.text_encoder=rali:hash")
    if args.get("projector") == "none":
        words.append("--model.init_args.projector=linear")
    if "ranks" in config["data"]:
        words.append("--data.ranks=degraded:library?types=jpeg,gaussian_blur&size=64")
    return words + _texts(config)


def _texts(config: dict[str, Any]) -> list[str]:
    """A captioner in the place of a teacher's tables."""
    tables = ".parquet" in str(config["data"].get("descriptions"))
    return ["--data.descriptions=attributes?mos_words=true"] if tables else []


def calibrate(config: dict[str, Any], refs: list[str]) -> list[str]:
    """The calibration that a config asks for, made up."""
    if "calibration" not in config["data"]:
        return []
    write_calibration({ref: Scale(0.8, 0.5, 0.9, 10) for ref in refs}, "made up", "calibration.json")
    return ["--data.calibration=calibration.json"]


def small(ref: str) -> str:
    """A synthetic data set with few images; other references as they are."""
    return f"{ref.partition('?')[0]}?n=60&size=64" if ref.startswith("synthetic:") else ref


def _listed(refs: str | list[str]) -> list[str]:
    return [refs] if isinstance(refs, str) else refs


def command(path: Path, folder: Path, photo: Callable[..., np.ndarray], *options: str) -> list[str]:
    """The command that fits a config in ``folder``, on images made there."""
    config = yaml.safe_load(path.read_text())
    train, test = (_listed(config["data"].get(role) or []) for role in ("train", "test"))
    make_data(train + test, folder / "data", photo)
    words = [
        *("fit", "--config", str(path), "--trainer.accelerator=cpu", "--data.batch_size=6"),
        *("--data.num_workers=0", "--data.pin_memory=false", "--data.root=data", *shrink(config), *options),
    ]
    if any(ref.startswith("synthetic:") for ref in train):
        train = [small(ref) for ref in train]
        words += [f"--data.train=[{','.join(train)}]", "--data.test=synthetic:lab?n=60&size=64"]
        own = config["model"]["init_args"].get("backbone", "rali:").startswith("rali:")
        words += ["--data.train_view.size=48"] if own else []
        words += ["--data.val=synthetic:lab?n=60&size=64"] if "val" in config["data"] else []
    return words + calibrate(config, train)


@pytest.mark.parametrize("path", CONFIGS, ids=NAMES)
def test_config_runs(path, tmp_path, photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ("--trainer.fast_dev_run=2", "--trainer.precision=32-true")
    assert main(command(path, tmp_path, photo, *short)) == 0
    assert not list(tmp_path.glob("*.yaml")), "a run writes nothing into the working directory"


def _staged(path: Path) -> bool:
    """Whether a config changes what it trains on the way, or trains in another precision than float32."""
    config = yaml.safe_load(path.read_text())
    return config["model"]["class_path"] == "RALI" or "precision" in config.get("trainer", {})


STAGED = [path for path in CONFIGS if _staged(path)]


@pytest.mark.parametrize("path", STAGED, ids=[str(p.relative_to(p.parents[1])) for p in STAGED])
def test_config_runs_through_its_stages_in_its_precision(path, tmp_path, photo, monkeypatch, capfd):
    """A ``fast_dev_run`` has one epoch; what is made between stages meets what the next one computes with."""
    monkeypatch.chdir(tmp_path)
    model = yaml.safe_load(path.read_text())["model"]
    aligns = model["init_args"].get("align_epochs", 0)
    epochs = ["--trainer.max_epochs=3", "--trainer.limit_train_batches=3", "--trainer.max_steps=-1"]
    stages = ["--model.init_args.align_epochs=1"] if aligns else []
    code = main(command(path, tmp_path, photo, *epochs, *stages))
    if model["class_path"] in ("Reasoner", "RACT"):  # answers of random weights cannot be parsed
        assert code == 0 or "nothing was measured" in capfd.readouterr().err
        assert list(tmp_path.glob("runs/*/checkpoints/last.ckpt"))
    else:
        assert code == 0


def test_koniq_config_resolves_as_it_is(capsys):
    path = next(p for p in CONFIGS if p.name == "koniq10k_vit_l_14_336.yaml")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(path), "--print_config"])
    assert stop.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["backbone"] == "open_clip:ViT-L-14-336/openai"
    assert printed["model"]["init_args"]["prototypes"] == 250
    assert printed["data"]["train"] == "koniq10k"


@pytest.mark.parametrize("path", RECIPES, ids=[p.name for p in RECIPES])
def test_recipe_resolves(path, monkeypatch, capsys):
    """Every stage of a recipe is planned, and names files that are there or that an earlier stage makes."""
    monkeypatch.chdir(Path(__file__).parents[1])
    assert main(["pipeline", str(path), "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert "$ rali-zoo fit --config=configs/" in told and "${" not in told


def trl_command(path: Path, folder: Path, photo: Callable[..., np.ndarray], **options: object) -> list[str]:
    """The command that runs a config of TRL's trainer on a tiny model, on images made in ``folder``."""
    config = yaml.safe_load(path.read_text())
    make_data(config["train"], folder / "data", photo)
    words = {
        "vlm": "rali:vlm-tiny?image_size=32&width=32&layers=1&grid=2", "root": "data",
        "train": f"[{','.join(small(ref) for ref in config['train'])}]", "grpo.gradient_checkpointing": "false",
        "grpo.max_completion_length": 8, **options,
    }  # fmt: skip
    return ["trl", "--config", str(path), *(f"--{name}={value}" for name, value in words.items())]


@pytest.mark.parametrize("path", TRL, ids=[p.name for p in TRL])
def test_trl_config_runs(path, tmp_path, photo, monkeypatch):
    """A step of TRL's trainer on a tiny model; precision and memory are a GPU's in the others."""
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    on_a_cpu = {"tuning.precision": "float32", "grpo.use_cpu": "true", "grpo.bf16": "false"}
    assert main(trl_command(path, tmp_path, photo, **on_a_cpu, **{"grpo.max_steps": 1})) == 0
    output = yaml.safe_load(path.read_text())["output"]
    assert (tmp_path / output / "model" / "config.json").is_file()
