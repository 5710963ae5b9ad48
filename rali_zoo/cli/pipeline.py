"""``rali-zoo pipeline``: run a recipe of several commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rali_zoo.cli import run_function


def pipeline_command(
    recipe: Path,
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
    from rali_zoo.recipe import check_trust, read_recipe

    given = {name: str(value) for name, value in (vars or {}).items()}
    read = read_recipe(recipe, given)
    if not trust_recipe:
        check_trust(read, recipe, given)
    runner = Runner(read, lambda line: print(line, flush=True))
    if dry_run:
        show(runner.plan(until, force))
    else:
        runner.run(until, force)


def main(words: Sequence[str]) -> None:
    """Run the command; ``words`` are its name and what follows it."""
    run_function(pipeline_command, words, positional=("recipe",))
