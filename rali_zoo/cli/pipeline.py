"""``rali-zoo pipeline``: run a recipe of several commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rali_zoo.cli import check_words
from rali_zoo.errors import ConfigError, near_miss
from rali_zoo.recipe import Recipe, Stage, configs
from rali_zoo.settings import read_yaml
from rali_zoo.trust import class_paths, names_outside, texts

#: Options by which a command line has code imported or run.
_CODE = re.compile(
    r"--(plugin|trust_\w+|.*class_path|trainer\.(callbacks|logger|plugins|strategy|profiler|accelerator))\b"
)
_CONSENT = "Read it, and give --trust_recipe if that is what you want"


def command(
    recipe: Path,
    /,
    until: str | None = None,
    force: str | None = None,
    dry_run: bool = False,
    trust_recipe: bool = False,
    vars: dict[str, str | int | float] | None = None,
) -> None:
    """Run the stages of a recipe, skip what is done, go on where a run was stopped.

    Args:
        recipe: yaml file, such as configs/pipelines/ract_synthetic.yaml.
        until: stop after this stage; only it and what it needs are run.
        force: run this stage anew though nothing has changed.
        dry_run: show what would be done, and do nothing.
        trust_recipe: allow the recipe to start other programs, import code, and name addresses and paths outside
            of the working directory.
        vars: values for the recipe's variables, e.g. --vars.n=200.
    """
    from rali_zoo.pipeline import Runner, show
    from rali_zoo.recipe import read_recipe

    given = {name: str(value) for name, value in (vars or {}).items()}
    read = read_recipe(recipe, given)
    if not trust_recipe:
        check_trust(read, recipe, given)
    runner = Runner(read, lambda line: print(line, flush=True), check_words)
    if dry_run:
        show(runner.plan(until, force))
    else:
        runner.run(until, force)


def check_trust(recipe: Recipe, path: Path, given: Mapping[str, str] | None = None) -> None:
    """Refuse what a recipe, or a config that it names, could have run or written that a user has not typed.

    Args:
        recipe: of :func:`read_recipe`.
        path: its file.
        given: values of variables that the user typed, which may be anything.

    Raises:
        ConfigError: a command that is none of ours, a launcher, code to import, an address, or a path outside of
            the working directory; ``--trust_recipe`` allows them.
    """
    content = {key: value for key, value in read_yaml(path).items() if key != "launcher"}
    own = content.pop("vars", None)
    variables = own.items() if isinstance(own, dict) else ()
    for text in texts([content, {name: value for name, value in variables if name not in (given or {})}]):
        if names_outside(text):
            raise ConfigError(
                f"{path} names {text!r}, a command, an address or a path outside of this folder. {_CONSENT}, or give "
                "another value: --vars.NAME=VALUE"
            )
    for stage in recipe.stages:
        _check_stage(stage, f"{path}: stage {stage.name}")


def _check_stage(stage: Stage, place: str) -> None:
    from rali_zoo.cli.main import COMMANDS
    from rali_zoo.trainers import TRAINERS

    if stage.launcher:
        raise ConfigError(f"{place} starts the program {stage.launcher[0]!r}. {_CONSENT}")
    if stage.command not in COMMANDS or stage.command == "pipeline":
        raise ConfigError(f"{place}: no command {stage.command!r}. {near_miss(stage.command, COMMANDS)}")
    for word in stage.run:
        if _CODE.match(word):
            raise ConfigError(f"{place} can have code run by {word!r}. {_CONSENT}")
    for config in configs(stage.run):
        named = list(class_paths(read_yaml(Path(config)))) if Path(config).is_file() else []
        for name in named:
            if name not in TRAINERS and not name.startswith(("lightning.", "torch.optim.", "rali_zoo.")):
                raise ConfigError(f"{place}: {config} names the class {name!r}. {_CONSENT}")
