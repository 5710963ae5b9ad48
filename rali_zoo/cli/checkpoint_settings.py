"""What a checkpoint and its run folder state, so that it need not be typed again, and how far they are trusted.

Lightning 2.6 lets ``--ckpt_path`` replace the model class and settings of the command line without a word.
Here the checkpoint's settings are read *before* the user's: what is typed wins, and differences are named.
A run folder may be somebody else's: see docs/security.md, which states what is taken from it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rali_zoo.cli.training import CommandLine
from rali_zoo.errors import CheckpointError, ConfigError, RaliZooError, near_miss
from rali_zoo.models.files import Checkpoint, read_checkpoint
from rali_zoo.paths import cache_dir, sha256
from rali_zoo.settings import read_yaml
from rali_zoo.trainers import TRAINERS
from rali_zoo.trust import class_paths, names_outside, texts

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

Plain = dict[str, object]
# Lightning's own words for "a checkpoint of the run in progress"; they name no file.
_WORDS = ("last", "hpc")
_SHARED_KEYS = ("seed_everything", "trainer", "model", "data")
#: Settings that files of 0.1.0 name otherwise, by the name they have today.
RENAMED = {"max_unreadable": "max_undecodable", "text_tower": "text_encoder"}
#: Packages whose classes a file may name inside the settings of a model.
_LIBRARIES = ("rali_zoo", "torch.optim")


@dataclass(frozen=True)
class CheckpointSettings:
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
    init_args: Plain
    config: Plain
    source: str
    content: dict[str, object] = field(repr=False)


def read(line: CommandLine, base: type[LightningModule]) -> CheckpointSettings | None:
    """What the checkpoint of a command line brings; ``None`` without one, or for Lightning's word ``last``.

    With a config of the user's, the run's data and trainer settings are not read.

    Args:
        line: what was typed.
        base: what a model derives from.

    Raises:
        CheckpointError: no such file, not a checkpoint of ``fit``, or one that names what only a user may.
    """
    if line.checkpoint is None or (line.command == "fit" and line.checkpoint in _WORDS):
        return None
    path = Path(line.checkpoint)
    if not path.is_file():
        raise CheckpointError(_missing(path))
    content = read_checkpoint(str(path))
    saved = content.get("hyper_parameters", {})
    hparams = renamed({k: v for k, v in saved.items() if k not in ("_instantiator", "_class_path")})
    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    config, source, own = ({}, str(path), False) if line.configs else _run_config(run, content, line.trusting)
    if saved.get("_class_path"):
        config = {**config, "model": {"class_path": str(saved["_class_path"]), "init_args": dict(hparams)}}
    said = set(line.strings())
    if own:
        said |= set(texts(read_yaml(run / "config.yaml")))
    model = config.get("model")
    class_path = ""
    if isinstance(model, dict) and model.get("class_path"):
        named = str(model["class_path"])
        class_path = named if line.trusting or named in said else known_class(named, base, path)
        config["model"] = {**model, "class_path": class_path}
    if not line.trusting:
        _check_outside(config, said, line, source)
    trained = class_path if saved.get("_class_path") else ""
    return CheckpointSettings(path, run, trained, hparams, config, source, dict(content))


def known_class(named: str, base: type[LightningModule], path: Path) -> str:
    """The full path of a model class that a file names; nothing is imported because a file says so.

    Raises:
        CheckpointError: neither a row of :data:`~rali_zoo.trainers.TRAINERS` nor a class that is imported already.
    """
    module, _, name = named.rpartition(".")
    if name in TRAINERS and module.split(".")[0] in ("rali_zoo", ""):  # 0.1.0 kept them in rali_zoo.models
        found = TRAINERS[name]
        return f"{found.__module__}.{found.__qualname__}"
    found = getattr(sys.modules.get(module), name, None)
    if isinstance(found, type) and issubclass(found, base):
        return named
    raise CheckpointError(
        f"{path}: unknown model class {named!r}, and a file cannot have code imported. If you trust it, name its "
        f"module yourself: --plugin {module or 'MODULE'}. {near_miss(name, TRAINERS)}"
    )


def load_weights(checkpoint: CheckpointSettings, model: LightningModule, whole: bool) -> None:
    """Load the checkpoint's weights into a model, and what belongs to them (view, training sets).

    Args:
        checkpoint: of a module of the same class.
        model: what they are loaded into.
        whole: with the text encoder, which only training needs.

    Raises:
        CheckpointError: the weights do not fit.
    """
    only_trained = () if whole else ("text_tower.", "text_encoder.")
    weights = cast("dict[str, Any]", checkpoint.content["state_dict"])  # read_checkpoint has seen to it
    try:
        model.load_state_dict({k: v for k, v in weights.items() if not k.startswith(only_trained)})
        model.on_load_checkpoint(checkpoint.content)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, RaliZooError):
            raise
        raise CheckpointError(
            f"{checkpoint.path} does not fit the model as configured here. {str(error)[:600]}"
        ) from error
    checkpoint.content.clear()  # Lightning reads the file itself where it needs the rest


def renamed(settings: Mapping[str, object]) -> Plain:
    """Settings under the names they have today."""
    return {RENAMED.get(key, key): value for key, value in settings.items()}


# ---- trust ---------------------------------------------------------------------------------------------------


def remember(config: Path) -> None:
    """Note in the cache that this user's fit wrote a ``config.yaml``, so that all of it is trusted later."""
    (cache_dir("runs") / sha256(config)).touch()


def is_own(config: Path) -> bool:
    """Whether a ``config.yaml`` is, byte for byte, one that a fit of this user wrote."""
    try:
        return (cache_dir("runs") / sha256(config)).is_file()
    except (OSError, RaliZooError):
        return False


def _run_config(run: Path, content: Checkpoint, trusting: bool) -> tuple[Plain, str, bool]:
    """Settings of the run, where they were read, and whether this user's fit wrote them."""
    saved = run / "config.yaml"
    if not saved.is_file() or saved.stat().st_size == 0:
        saved_data = content.get("datamodule_hyper_parameters", {})
        # Only what the command line saved is written the way the command line reads it.
        if "_instantiator" not in saved_data:
            return {}, "the checkpoint", False
        data = renamed({k: v for k, v in saved_data.items() if not k.startswith("_")})
        return {"data": data}, "the checkpoint", False
    own = is_own(saved)
    config = {key: value for key, value in read_yaml(saved).items() if key in _SHARED_KEYS}
    parts: dict[str, dict[str, object]] = {}
    for part in ("trainer", "model", "data"):
        found = config.get(part, {})
        if not isinstance(found, dict):
            raise ConfigError(f"{saved}: {part!r} holds settings, not {found!r}")
        parts[part] = found
    trainer = parts["trainer"]
    config.pop("trainer", None)
    if parts["data"]:
        config["data"] = renamed(parts["data"])
    if own or trusting:
        # The folder may have been moved or renamed since: the run is where the checkpoint is.
        config["trainer"] = {key: value for key, value in trainer.items() if key != "default_root_dir"}
    else:
        print(
            f"note: {saved} was not written by a fit of yours, or was changed since: its trainer settings are "
            "not used (--trust_run_config=true uses them; they can run code)",
            file=sys.stderr,
        )
        if isinstance(trainer.get("precision"), str | int):
            config["trainer"] = {"precision": trainer["precision"]}
    return config, str(saved), own


def _check_outside(config: Plain, said: Collection[str], line: CommandLine, source: str) -> None:
    """Refuse what only a user may name; raises :class:`CheckpointError`."""
    for part in ("model", "data"):
        settings = config.get(part, {})
        settings = (
            settings.get("init_args", {}) if part == "model" and isinstance(settings, dict) else settings
        )
        if not isinstance(settings, dict):
            raise CheckpointError(f"{source}: {part!r} holds settings, not {settings!r}")
        for key in [key for key in settings if line.sets(part, key)]:
            del settings[key]  # what is typed replaces it, whole
        for key, value in settings.items():
            for text in texts(value):
                if text not in said and names_outside(text):
                    raise CheckpointError(
                        f"{source}: {part}.{key} names {text!r}, a command, an address or a path outside of this "
                        f"folder. If it is what you want, type it: --{part}.{key}=…, or --trust_run_config=true"
                    )
            for name in class_paths(value):
                if name not in said and not name.startswith(tuple(f"{lib}." for lib in _LIBRARIES)):
                    raise CheckpointError(
                        f"{source}: {part}.{key} names the class {name!r}; type it if you trust it"
                    )


# ---- against the command line --------------------------------------------------------------------------------


def check_same_class(checkpoint: CheckpointSettings, class_path: str) -> None:
    """Refuse to load weights into another class; raises :class:`ConfigError`."""
    if checkpoint.class_path and _class(class_path) is not _class(checkpoint.class_path):
        trained, asked = checkpoint.class_path.rpartition(".")[2], class_path.rpartition(".")[2]
        raise ConfigError(
            f"{checkpoint.path} was trained with model class {trained}, and this command line asks for {asked}. "
            f"Leave the model out (the checkpoint knows it), or give another --ckpt_path."
        )


def _class(class_path: str) -> object:
    """The class of a path that jsonargparse has imported already; some classes have two paths."""
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name) if module in sys.modules else class_path


def differences(checkpoint: CheckpointSettings, init_args: Mapping[str, object]) -> list[str]:
    """One line for each setting that was typed and is not what the checkpoint was trained with."""
    if not checkpoint.class_path:
        return []
    trained = checkpoint.init_args
    return [
        f"model.{key} = {value!r} as given here; the checkpoint was trained with {trained[key]!r}"
        for key, value in init_args.items()
        if key in trained and trained[key] != value
    ]


def _missing(path: Path) -> str:
    folders = [path / "checkpoints", path] if path.is_dir() else [path.parent]
    near = [str(file) for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.ckpt"))]
    what = "is a folder" if path.is_dir() else "does not exist"
    hint = near_miss(str(path), near) if near else "No checkpoint is beside it either; fit writes them."
    return f"checkpoint {str(path)!r} {what}. {hint}"
