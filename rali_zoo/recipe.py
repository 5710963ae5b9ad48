"""A recipe: the yaml file of a pipeline, with its variables filled in and its repetitions written out.

```yaml
vars: {out: runs/demo, n: 60}
folder: ${out}                      # where state and logs of the stages are kept, below stages/
foreach: {seed: [0, 1]}             # every stage, for every seed
stages:
  - name: reasoner
    foreach: {domain: [lab, wild]}  # becomes reasoner-0-lab, reasoner-0-wild, …
    run: [fit, --config, configs/x.yaml, "--data.train=synthetic:${domain}?n=${n}",
          "--trainer.default_root_dir=${out}/${domain}-${seed}"]
    outputs: ["${out}/${domain}-${seed}/checkpoints/best.ckpt"]
```

A value of ``foreach`` may bring further variables: ``{held: {lab: {rest: "[b,c]"}, wild: {rest: "[a,c]"}}}``.
A stage needs those whose outputs stand in its words or inputs; ``needs`` names others.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from string import Template
from typing import Any

import yaml

from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.settings import read_yaml

_TOP = ("vars", "folder", "foreach", "launcher", "stages")
_STAGE = ("name", "run", "inputs", "outputs", "needs", "foreach", "launcher")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")
_ROOT = "--trainer.default_root_dir="
#: What ``fit`` writes into its run folder.
_RUN_FILES = (
    "checkpoints",
    "config.yaml",
    "config.resumed.yaml",
    "results.json",
    "predictions",
    "logs",
    "test",
    ".lock",
)
Variables = dict[str, str]


@dataclass(frozen=True)
class Stage:
    """One command line.

    Attributes:
        name: unique; that of the file, and the values it is repeated for.
        group: the name in the file.
        run: words after ``rali-zoo``.
        outputs: files or folders that it writes; they are removed before it is run anew.
        inputs: files and folders it reads that no stage writes, configs among them.
        needs: names of the stages it depends on.
        launcher: words before ``python -m rali_zoo``, such as ``[srun, --ntasks=8]``.
    """

    name: str
    group: str
    run: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = field(default=())
    launcher: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The first word."""
        return self.run[0]

    @property
    def run_folder(self) -> Path | None:
        """The run folder of ``fit``; ``None`` for other commands."""
        if self.command != "fit":
            return None
        (root,) = (word.removeprefix(_ROOT) for word in self.run if word.startswith(_ROOT))
        return Path(root)

    @property
    def last_checkpoint(self) -> Path | None:
        """Where ``fit`` keeps the checkpoint that it resumes from; ``None`` for other commands."""
        return self.run_folder / "checkpoints" / "last.ckpt" if self.run_folder else None

    @property
    def written(self) -> tuple[Path, ...]:
        """All that a run of the stage may leave, whole or in part."""
        found = [Path(path) for path in self.outputs]
        if self.run_folder:
            found += [self.run_folder / name for name in _RUN_FILES]
        else:  # the parts that describe and score keep until they are done
            found += [Path(f"{path}.parts") for path in self.outputs]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Recipe:
    """Stages in an order in which they can be run.

    Attributes:
        folder: where their state is kept.
        stages: each after those that it needs.
        again: command line that runs the same recipe.
    """

    folder: str
    stages: tuple[Stage, ...]
    again: str

    def stage(self, name: str) -> Stage:
        """The stage of a full name."""
        return next(stage for stage in self.stages if stage.name == name)

    def named(self, name: str) -> set[str]:
        """Full names that a name means: its own, or all repetitions of that stage.

        Raises:
            UnknownNameError: no such stage.
        """
        found = {stage.name for stage in self.stages if name in (stage.name, stage.group)}
        if not found:
            known = [s.name for s in self.stages] + [s.group for s in self.stages]
            raise UnknownNameError("stage", name, set(known))
        return found

    def upto(self, name: str | None) -> list[Stage]:
        """All stages, or those of a name with all that they need."""
        if name is None:
            return list(self.stages)
        wanted = self.named(name)
        for stage in reversed(self.stages):
            if stage.name in wanted:
                wanted |= set(stage.needs)
        return [stage for stage in self.stages if stage.name in wanted]


def read_recipe(path: str | Path, given: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: the yaml file.
        given: values that take the place of the file's ``vars``.

    Raises:
        ConfigError: a file that cannot be read, or stages that do not fit together; the message names them.
        UnknownNameError: a key, variable or stage that does not exist.
    """
    path, given = Path(path), dict(given or {})
    content = read_yaml(path)
    _known(f"key of {path}", content, _TOP)
    variables: Variables = {}
    own, raws = content.get("vars") or {}, content.get("stages") or []
    if not isinstance(own, dict) or not all(isinstance(name, str) for name in own):
        raise ConfigError(f"{path}: vars is a mapping such as {{out: runs/mine}}")
    if not isinstance(raws, list) or not all(isinstance(raw, dict) for raw in raws):
        raise ConfigError(f"{path}: stages is a list of mappings; see rali_zoo.recipe for the form")
    for name in given:
        if name not in own:
            raise UnknownNameError(f"variable of {path}", name, map(str, own))
    for name, value in own.items():
        variables[name] = _fill(str(given.get(name, value)), variables, f"{path}: vars.{name}")
    stages: list[Stage] = []
    for values, chosen in _repeat(content.get("foreach"), variables, str(path)):
        for number, raw in enumerate(raws):
            stages += _stages(raw, values, chosen, content, f"{path}: stage {number + 1}")
    if not stages:
        raise ConfigError(f"{path} has no stages; see rali_zoo.recipe for the form")
    _unique(stages, path)
    folder = _fill(str(content.get("folder", path.stem)), variables, f"{path}: folder")
    words = [f"--vars.{name}={value}" for name, value in given.items()]
    again = shlex.join(["rali-zoo", "pipeline", str(path), *words])
    return Recipe(folder, tuple(_ordered(_linked(stages, path), path)), again)


def _known(kind: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UnknownNameError(kind, str(name), known)


def _fill(text: str, variables: Variables, place: str) -> str:
    """The text with its ``${name}`` replaced."""
    try:
        return Template(text).substitute(variables)
    except KeyError as error:
        raise UnknownNameError(f"variable (in {place})", str(error.args[0]), variables) from None
    except ValueError as error:
        raise ConfigError(
            f"{place}: {text!r}: {error}; a variable is ${{NAME}}, and $$ is a dollar sign"
        ) from None


def _repeat(axes: object, variables: Variables, place: str) -> Iterator[tuple[list[str], Variables]]:
    """Values of the axes, and the variables with them, for each combination; one without axes."""
    axes = {} if axes is None else axes
    if not isinstance(axes, dict) or not all(isinstance(name, str) for name in axes):
        raise ConfigError(f"{place}: foreach is a mapping such as {{seed: [0, 1]}}")
    choices = [
        [(row[name], row) for row in _axis(name, values, variables, f"{place}: foreach.{name}")]
        for name, values in axes.items()
    ]
    for combination in itertools.product(*choices):
        chosen = dict(variables)
        for _, row in combination:
            chosen |= {k: _fill(v, chosen, f"{place}: foreach") for k, v in row.items()}
        yield [value for value, _ in combination], chosen


def _axis(name: str, values: object, variables: Variables, place: str) -> list[Variables]:
    """What each value of an axis sets: its name, and further variables that it brings."""
    if isinstance(values, str):
        try:
            values = yaml.safe_load(_fill(values, variables, place))
        except yaml.YAMLError as error:
            raise ConfigError(f"{place}: {values!r} is no list: {error}") from None
    if not isinstance(values, dict):
        return [{name: str(value)} for value in (values if isinstance(values, list) else [values])]
    rows = []
    for value, more in values.items():
        if not isinstance(more, dict) or not all(isinstance(key, str) for key in more):
            raise ConfigError(
                f"{place}.{value}: a mapping of further variables is expected, such as {{ref: x}}"
            )
        rows.append({name: str(value), **{key: str(given) for key, given in more.items()}})
    return rows


def _stages(
    raw: Mapping[str, Any], outer: list[str], variables: Variables, top: Mapping[str, Any], place: str
) -> Iterator[Stage]:
    """A stage of the file, once for each of its repetitions."""
    _known(f"key of {place}", raw, _STAGE)
    group = str(raw.get("name", ""))
    if not _NAME.fullmatch(group):
        raise ConfigError(f"{place}: name {group!r} is made of letters, digits, '_' and '.'")
    for values, chosen in _repeat(raw.get("foreach"), variables, f"{place} ({group})"):

        def listed(key: str, chosen: Variables = chosen) -> tuple[str, ...]:
            given = raw.get(key, top.get(key) if key == "launcher" else None) or []
            if not isinstance(given, list):
                raise ConfigError(f"{place} ({group}): {key} is a list")
            return tuple(_fill(str(word), chosen, f"{place} ({group}): {key}") for word in given)

        run, outputs = listed("run"), listed("outputs")
        if not run or not outputs:
            raise ConfigError(f"{place} ({group}): give run, the words after rali-zoo, and outputs")
        if run[0] == "fit" and sum(word.startswith(_ROOT) for word in run) != 1:
            raise ConfigError(
                f"{place} ({group}): give {_ROOT}FOLDER, where a killed fit finds its checkpoint"
            )
        inputs = tuple(dict.fromkeys([*listed("inputs"), *configs(run)]))
        name = "-".join([group, *(re.sub(r"[^A-Za-z0-9_.]+", "_", value) for value in [*outer, *values])])
        yield Stage(name, group, run, outputs, inputs, listed("needs"), listed("launcher"))


def configs(words: Sequence[str]) -> Iterator[str]:
    """Config files that a command line names."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("--config", "-c"):
            yield following
        elif word.startswith("--config="):
            yield word.removeprefix("--config=")


def _unique(stages: Sequence[Stage], path: Path) -> None:
    for kind, given in (
        ("stages named", [stage.name for stage in stages]),
        ("stages that write", [output for stage in stages for output in stage.outputs]),
    ):
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise ConfigError(f"{path}: several {kind} {twice[0]}; put what they are repeated for into it")


def _linked(stages: Sequence[Stage], path: Path) -> Iterator[Stage]:
    """The stages with full names in ``needs``, those of the outputs that they read among them."""
    makers = {output: stage.name for stage in stages for output in stage.outputs}
    # A longer path may hold a shorter one; what is part of a longer name is not meant.
    patterns = {o: re.compile(rf"(?<![\w/.-]){re.escape(o)}(?![\w-]|\.\w)") for o in makers}
    for stage in stages:
        needs = []
        for asked in stage.needs:
            found = [s.name for s in stages if asked in (s.name, s.group)]
            if not found:
                raise UnknownNameError(
                    f"stage ({path}: needed by {stage.name})", asked, {s.group for s in stages}
                )
            needs += found
        text = "\n".join([*stage.run, *stage.inputs])
        needs += [maker for o, maker in makers.items() if maker != stage.name and patterns[o].search(text)]
        inputs = tuple(path for path in stage.inputs if path not in makers)
        yield replace(stage, needs=tuple(dict.fromkeys(needs)), inputs=inputs)


def _ordered(stages: Iterator[Stage], path: Path) -> Iterator[Stage]:
    """Each stage after those that it needs, else in the order of the file."""
    by_name = {stage.name: stage for stage in stages}
    sorter = TopologicalSorter({stage.name: stage.needs for stage in by_name.values()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise ConfigError(
            f"{path}: stages need each other in a circle: {' -> '.join(error.args[1])}"
        ) from None
    place = {name: number for number, name in enumerate(by_name)}
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted({*ready, *sorter.get_ready()}, key=place.__getitem__)
        first = ready.pop(0)
        sorter.done(first)
        yield by_name[first]
