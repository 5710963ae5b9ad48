"""``fit``, ``validate``, ``test``, ``predict``, before anything heavy is imported: help, and names that are none.

A mistyped name costs the time to read this file, not that of importing torch and lightning; they and the values
of settings follow in :mod:`rali_zoo.cli.trainer`.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rali_zoo.errors import UsageError, near_miss
from rali_zoo.settings import read_yaml
from rali_zoo.trust import texts

COMMANDS = ("fit", "validate", "test", "predict")
#: Settings beside those of model, data and trainer.
_TOP = ("model", "data", "trainer", "seed_everything", "ckpt_path", "weights_only", "verbose", "config")
OWN = ("test_after_fit", "trust_run_config", "run", "return_predictions", "print_config", "help")
_HELP = """usage: rali-zoo {command} {usage}

{purpose}

examples:
{examples}
options:
  --config FILE.yaml          settings of model, data and trainer (configs/ has many; the last one wins)
  --model CLASS               RALI, Regression, DistributionRegression, Reasoner, RACT, or one of your own
  --model.backbone REFERENCE  image encoder, such as timm:resnet50.a1_in1k (rali-zoo list backbones)
  --data.train REFERENCE      data set, such as koniq10k or csv:scores.csv (rali-zoo list datasets)
  --trainer.max_epochs N      how long to train
{own}  --plugin MODULE             import a module of yours first, so that its models and data sets are known
  --help=all                  every option of trainer, data and models (some hundred)
  --model.help CLASS          every setting of one model
  --print_config              the whole configuration as yaml, without running it

Each setting of a config can be given as an option: 'data: {{batch_size: 8}}' is --data.batch_size=8.
"""
_CHECKPOINT = (
    "  --ckpt_path FILE.ckpt       the checkpoint; model and settings are read from it and its run folder\n"
)
_PAGES = {
    "fit": (
        "--config FILE.yaml [--key=value ...]",
        "Train a model, then test its best checkpoint. Everything goes into one run folder, runs/NAME; a second run\n"
        "of the same name becomes runs/NAME-2, and nothing is replaced.",
        "  rali-zoo fit --config configs/quickstart/synthetic.yaml\n"
        "  rali-zoo fit --model=Regression --data.train=csv:scores.csv --trainer.max_epochs=20\n"
        "  rali-zoo fit --ckpt_path runs/NAME/checkpoints/last.ckpt      # goes on where it was stopped\n",
        "  --run NAME                  name of the run folder, below runs/\n"
        + _CHECKPOINT.replace("the ", "resume: the ", 1),
    ),
    "validate": (
        "--ckpt_path FILE.ckpt",
        "Run the validation sets through a checkpoint.",
        "  rali-zoo validate --ckpt_path runs/NAME/checkpoints/best.ckpt\n",
        _CHECKPOINT,
    ),
    "test": (
        "--ckpt_path FILE.ckpt [--data.test=REFERENCE]",
        "Test a checkpoint and write results.json into its run folder, below test/.",
        "  rali-zoo test --ckpt_path runs/NAME/checkpoints/best.ckpt\n"
        "  rali-zoo test --ckpt_path runs/NAME/checkpoints/best.ckpt --data.test=koniq10k\n",
        _CHECKPOINT,
    ),
    "predict": (
        "--ckpt_path FILE.ckpt --data.predict=REFERENCE",
        "Write a checkpoint's predictions for data sets, one table each. For folders of photos: rali-zoo score.",
        "  rali-zoo predict --ckpt_path runs/NAME/checkpoints/best.ckpt --data.predict=csv:scores.csv\n",
        _CHECKPOINT,
    ),
}


@dataclass(frozen=True)
class CommandLine:
    """What a user typed, configs included.

    Attributes:
        command: one of :data:`COMMANDS`.
        words: what follows it.
        checkpoint: of ``--ckpt_path``, on the command line or in a config.
        configs: files of ``--config``, with their content.
        models: model classes that were named.
        trusting: whether the checkpoint's run folder is trusted as if the user had written it.
    """

    command: str
    words: tuple[str, ...]
    checkpoint: str | None
    configs: dict[Path, dict[str, object]]
    models: tuple[str, ...]
    trusting: bool

    @classmethod
    def read(cls, words: Sequence[str]) -> CommandLine:
        """Read a command line, the command first; raises :class:`ConfigError` for a config that is none."""
        command, *rest = words
        scan = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        scan.add_argument("-c", "--config", action="append", default=[], type=Path)
        for name in ("--ckpt_path", "--model", "--model.class_path", "--trust_run_config"):
            scan.add_argument(name, dest=name.strip("-"))
        found = vars(scan.parse_known_args(rest)[0])
        configs = {path: _read_config(path) for path in found["config"]}
        checkpoint = found["ckpt_path"]
        for content in reversed(configs.values()):
            checkpoint = checkpoint or content.get("ckpt_path")
        models = [found["model"], found["model.class_path"]]
        for content in configs.values():
            model = content.get("model")
            models.append(model.get("class_path") if isinstance(model, Mapping) else model)
        return cls(
            command,
            tuple(rest),
            None if checkpoint in (None, "null") else str(checkpoint),
            configs,
            tuple(str(model) for model in models if model),
            (found["trust_run_config"] or "").lower() in ("true", "yes", "1"),
        )

    def sets(self, part: str, key: str) -> bool:
        """Whether an option gives the setting ``key`` of ``data`` or ``model`` (configs do not count)."""
        names = (f"--{part}.{key}", f"--{part}.init_args.{key}")
        return any(re.split(r"[=+]", word)[0] in names for word in self.words)

    def strings(self) -> Iterator[str]:
        """Every text that was typed: words, values of options, and what stands in configs."""
        for word in self.words:
            yield word
            yield word.partition("=")[2]
        yield from texts(list(self.configs.values()))


def main(words: Sequence[str]) -> None:
    """Run one of the four commands.

    Args:
        words: the command, then its options.

    Raises:
        UsageError: a name that is none.
    """
    asked = [word for word in words if word in ("-h", "--help")]
    if asked:
        usage, purpose, examples, own = _PAGES[words[0]]
        page = {"usage": usage, "purpose": purpose, "examples": examples, "own": own}
        print(_HELP.format(command=words[0], **page), end="")
        return
    words = ["--help" if word == "--help=all" else word for word in words]
    line = CommandLine.read(words)
    check_names(line)
    from rali_zoo.cli import trainer

    trainer.main(words)


def check_names(line: CommandLine) -> None:
    """Refuse settings and classes that do not exist; raises :class:`UsageError`."""
    owners = {
        "data": _parameters("rali_zoo.data.datamodule:IQADataModule"),
        "trainer": _parameters("lightning:pytorch.trainer.trainer:Trainer"),
        "model": {"class_path", "init_args"},
    }
    init_args: dict[str, object] = {}
    for path, content in line.configs.items():
        _check_config(line.command, path, content, owners)
        model = content.get("model")
        if isinstance(model, Mapping) and isinstance(model.get("init_args"), Mapping):
            init_args |= model["init_args"]
    for word in line.words:
        option = re.match(r"--([A-Za-z_]\w*)(\.\w+)?", word)
        if option is None:
            continue
        _check("unknown option", f"--{option[1]}", {f"--{name}" for name in (*_TOP, *OWN)})
        inner_name = (option[2] or "").lstrip(".")
        if option[1] in ("data", "trainer") and inner_name not in ("", "help") and owners[option[1]]:
            valid = {f"--{option[1]}.{name}" for name in owners[option[1]] or ()}
            _check("unknown option", f"--{option[1]}.{inner_name}", valid)
        elif option[1] == "model" and inner_name not in ("", "help", "class_path", "init_args"):
            init_args[inner_name] = word.partition("=")[2]
    _check_model(line, init_args)


def _check_config(
    command: str, path: Path, content: Mapping[str, object], owners: Mapping[str, set[str] | None]
) -> None:
    for key, inner in content.items():
        if key in COMMANDS:
            raise UsageError(
                f"{path} nests its settings under {key!r}. Write them at its top level "
                "('model:', 'data:', 'trainer:'), and name the command on the command line."
            )
        _check(f"{command} has no setting", key, {*_TOP, *OWN}, path)
        known = owners.get(key)
        if known and isinstance(inner, Mapping):
            for name in inner:
                _check(f"{command} has no setting", f"{key}.{name}", {f"{key}.{n}" for n in known}, path)


def _imported_trainers() -> set[str]:
    """Names of the trainers that a plug-in has brought; none where nothing has imported their base class."""
    base = getattr(sys.modules.get("rali_zoo.trainers.base"), "IQAModule", None)
    found, todo = set[str](), [] if base is None else [base]
    while todo:
        children = todo.pop().__subclasses__()
        found |= {child.__name__ for child in children}
        todo += children
    return found


def _check_model(line: CommandLine, init_args: Mapping[str, object]) -> None:
    from rali_zoo.trainers import TRAINERS

    if not line.models:
        return
    classes = {*TRAINERS, *_imported_trainers()}
    for name in line.models:
        if "." not in name and name not in classes:
            raise UsageError(f"unknown class {name!r} at 'model'. {near_miss(name, classes)}")
    used = line.models[0] if line.models[0] in TRAINERS else None
    known = _parameters(TRAINERS.target(used)) if used and len(set(line.models)) == 1 else None
    for key, value in init_args.items():
        if known is not None:
            _check(f"{used} has no option", str(key), known)
        if key == "backbone" and isinstance(value, str) and value:
            from rali_zoo.backbones import BACKBONES
            from rali_zoo.uri import parse_uri

            parse_uri(value, BACKBONES, "backbone")


def _check(what: str, name: str, known: set[str], path: Path | None = None) -> None:
    if name not in known:
        at = f"{path}: " if path else ""
        raise UsageError(f"{at}{what} {name!r}. {near_miss(name, known)}")


def _parameters(target: str) -> set[str] | None:
    """Names of the settings of a class, read from its source; ``None`` if that does not say.

    Args:
        target: ``module:class``, or ``package:rest.of.module:class`` where only the package may be looked up.
    """
    package, _, rest = target.partition(":")
    inside, _, name = rest.rpartition(":")
    top, *below = [*package.split("."), *filter(None, inside.split("."))]
    spec = find_spec(top)  # of a submodule it would import the package
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent.joinpath(*below).with_suffix(".py")
    if not file.is_file():
        return None
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for method in node.body:
                if (
                    isinstance(method, ast.FunctionDef)
                    and method.name == "__init__"
                    and method.args.kwarg is None
                ):
                    arguments = [*method.args.args, *method.args.kwonlyargs]
                    return {argument.arg for argument in arguments} - {"self"}
    return None


def _read_config(path: Path) -> dict[str, object]:
    if not path.is_file():
        near = {
            str(file) for folder in ("configs", str(path.parent)) for file in Path(folder).glob("**/*.yaml")
        }
        raise UsageError(f"there is no config {str(path)!r}. {near_miss(str(path), near)}")
    return read_yaml(path)
