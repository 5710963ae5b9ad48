"""What a checkpoint and its run folder already say, so that it need not be typed again.

Lightning 2.6 lets ``--ckpt_path`` replace the model class and settings of the command line without a word.
Here the checkpoint's settings are read *before* the user's: what is typed wins, and differences are named.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rali_zoo.errors import CheckpointError, ConfigError, near_miss
from rali_zoo.models.files import read_checkpoint

if TYPE_CHECKING:
    from rali_zoo.trainers.base import IQAModule

# Lightning's own words for "a checkpoint of the run in progress"; they name no file.
_WORDS = ("last", "hpc")
_SHARED_KEYS = ("seed_everything", "trainer", "model", "data")


@dataclass(frozen=True)
class Carried:
    """What a checkpoint brings with it.

    Attributes:
        path: the checkpoint file.
        run: its run folder (the parent of ``checkpoints/``).
        class_path: class of the model that was trained; empty if the file does not say.
        init_args: the settings that model was built with.
        config: settings of the run to start from, below what the user types.
        source: where ``config`` was read, in words.
        content: the file's content; emptied once the weights are in the model.
    """

    path: Path
    run: Path
    class_path: str
    init_args: dict[str, Any]
    config: dict[str, Any]
    source: str
    content: dict[str, Any] = field(repr=False)


def typed(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The checkpoint and the config files that a command line names (``ckpt_path`` may stand in a config)."""
    scan = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scan.add_argument("--ckpt_path")
    scan.add_argument("-c", "--config", action="append", default=[])
    found, _ = scan.parse_known_args(list(words))
    checkpoint = found.ckpt_path
    for name in reversed(found.config):
        if checkpoint is None and Path(name).is_file():
            checkpoint = _read_yaml(Path(name)).get("ckpt_path")
    return (None if checkpoint in (None, "null") else str(checkpoint)), found.config


def read(checkpoint: str, resuming: bool, has_config: bool) -> Carried | None:
    """Read what ``checkpoint`` carries; ``None`` for one of Lightning's words such as ``last``.

    Args:
        checkpoint: what stands after ``--ckpt_path``.
        resuming: whether the command is ``fit``.
        has_config: whether the user gives a config; the run's data and trainer settings are then not read.

    Raises:
        CheckpointError: no such file, or not a checkpoint of ``fit``.
    """
    if resuming and checkpoint in _WORDS:
        return None
    path = Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(_missing(path))
    content = read_checkpoint(str(path))
    hparams = {k: v for k, v in content.get("hyper_parameters", {}).items() if k != "_instantiator"}
    class_path = _where_now(str(hparams.pop("_class_path", "")))
    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    config, source = ({}, f"{path}") if has_config else _run_config(run, content)
    if class_path:
        config = {**config, "model": {"class_path": class_path, "init_args": hparams}}
    return Carried(path, run, class_path, hparams, config, source, content)


def pour(carried: Carried, model: IQAModule, whole: bool) -> None:
    """Load the checkpoint's weights into a model, and what belongs to them (view, training sets).

    Args:
        carried: the checkpoint.
        model: a module of the class that was trained.
        whole: with the text tower, which only training needs.

    Raises:
        CheckpointError: the weights do not fit.
    """
    weights = carried.content["state_dict"]
    if not whole:
        weights = {
            name: value
            for name, value in weights.items()
            if not name.startswith(("text_tower.", "text_encoder."))
        }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{carried.path} does not fit the model as configured here. {str(error)[:600]}"
        ) from error
    model.on_load_checkpoint(carried.content)
    carried.content.clear()  # Lightning reads the file itself where it needs the rest


def _where_now(class_path: str) -> str:
    """The class of a checkpoint of 0.1.0 under its path of today."""
    from rali_zoo.trainers import TRAINERS

    package, _, name = class_path.rpartition(".")
    ours = package.startswith("rali_zoo.") and name in TRAINERS
    return TRAINERS.target(name).replace(":", ".") if ours else class_path


def _run_config(run: Path, content: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    saved = run / "config.yaml"
    if saved.is_file():
        config = {k: v for k, v in _read_yaml(saved).items() if k in _SHARED_KEYS}
        # The folder may have been moved or renamed since: the run is where the checkpoint is.
        if isinstance(config.get("trainer"), dict):
            config["trainer"].pop("default_root_dir", None)
        return config, str(saved)
    saved_data = content.get("datamodule_hyper_parameters", {})
    # Only what the command line saved is written the way the command line reads it.
    data = (
        {k: v for k, v in saved_data.items() if not k.startswith("_")}
        if "_instantiator" in saved_data
        else {}
    )
    return ({"data": data} if data else {}), "the checkpoint"


def _missing(path: Path) -> str:
    folders = [path / "checkpoints", path] if path.is_dir() else [path.parent]
    near = [str(file) for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.ckpt"))]
    what = "is a folder" if path.is_dir() else "does not exist"
    hint = near_miss(str(path), near) if near else "No checkpoint is beside it either; fit writes them."
    return f"checkpoint {str(path)!r} {what}. {hint}"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as yaml: {error}") from None
    return content if isinstance(content, dict) else {}


def check_same_class(carried: Carried, class_path: str) -> None:
    """Refuse to pour a checkpoint into another class; raises :class:`ConfigError`."""
    if carried.class_path and class_path != carried.class_path:
        trained, asked = carried.class_path.rpartition(".")[2], class_path.rpartition(".")[2]
        raise ConfigError(
            f"{carried.path} was trained with model class {trained}, and this command line asks for {asked}. "
            f"Leave the model out (the checkpoint knows it), or give another --ckpt_path."
        )


def differences(carried: Carried, init_args: Mapping[str, Any]) -> list[str]:
    """One line for each setting that was typed and is not what the checkpoint was trained with."""
    if not carried.class_path:
        return []
    return [
        f"model.{key} = {value!r} as given here; the checkpoint was trained with {carried.init_args[key]!r}"
        for key, value in init_args.items()
        if key in carried.init_args and carried.init_args[key] != value
    ]
