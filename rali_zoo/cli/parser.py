"""The parser of the four training commands: an error is a few lines, with the near miss."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn

from jsonargparse import _typehints
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LRScheduler
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer

from rali_zoo.cli.training import COMMANDS
from rali_zoo.errors import near_miss

#: Last part of a key to the base of the classes that may stand there.
_BASES: dict[str, type] = {
    "model": LightningModule,
    "optimizer": Optimizer,
    "scheduler": LRScheduler,
    "callbacks": Callback,
    "logger": Logger,
}
# Lines of jsonargparse that repeat the types or the input instead of saying what is wrong.
_NOISE = re.compile(
    r"^\s*-?\s*(Does not validate against|Subtypes:|Errors:|Given value type|Given value: (NestedArg|\{)|"
    r"Expected a <class 'NoneType'>|Expected a path but|Problem with given class_path)"
)
_GIVEN = r"Problem with given class_path '(?:[^']*\.)?([^'.]+)':\s+"
# What is left, in plainer words.
_PLAIN = (
    (re.compile(r'Parser key "([^"]+)":?'), r"\1:"),
    (
        re.compile(r"[Ee]xpected a typing\.Literal\[(.+?)\]\. Got value: (.+)"),
        r"expected one of \1, got '\2'",
    ),
    (re.compile(r"Expected an? <class '([^']+)'>"), r"expected \1"),
    (re.compile(r"^\s*-\s+"), ""),
)


@contextmanager
def torch_first() -> Iterator[None]:
    """While it lasts, a class without its module is torch's, Lightning's or ours where several have that name.

    jsonargparse takes every subclass that is imported for a choice: ``Adam`` names nothing any more once some
    library has brought bitsandbytes along.
    """
    resolve = _typehints.resolve_class_path_by_name

    def resolved(cls: type | tuple[type], name: str) -> str:
        try:
            return resolve(cls, name)
        except ValueError as error:
            paths = re.findall(r"[\w.]+\.\w+", str(error).partition("ambiguity:")[2])
            known = [path for path in paths if path.startswith(("torch.optim.", "lightning.", "rali_zoo."))]
            if len(known) != 1:
                raise
            return known[0]

    _typehints.resolve_class_path_by_name = resolved
    try:
        yield
    finally:
        _typehints.resolve_class_path_by_name = resolve


class RaliParser(LightningArgumentParser):
    """LightningArgumentParser whose errors name what was asked, what is valid, and what to type."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` in our words and exit with status 2."""
        if not self.exit_on_error:  # jsonargparse parses parts on trial; only the outermost parser speaks
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        prog = parser.prog.replace(" [options]", "")
        sys.stderr.write(
            f"{prog}: error: {explain(message, parser)}\n(the usual options: {prog} --help; all: {prog} --help=all)\n"
        )
        self.exit(2)
        raise SystemExit(2)


def explain(message: str, parser: argparse.ArgumentParser) -> str:
    """jsonargparse's ``message`` in fewer words and with the closest valid spelling."""
    return _class_error(message) or _key_error(message, parser) or _plain(message) or message


def _class_error(message: str) -> str:
    """What is wrong with a class or its options; empty if it is something else."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    if unknown := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"unknown class {unknown[1]!r}{_at(keys)}. {near_miss(unknown[1], _class_names(keys))}"
    if option := re.search(r"Option '([^']+)' is not accepted(?! before)", message):
        owners = re.findall(r"class_path(?:=| )'([^']+)'", message)
        if owners:
            name = owners[-1].rpartition(".")[2]
            return f"{name} has no option {option[1]!r}. {near_miss(option[1], _options_of(owners[-1]))}"
    if place := re.search(r"class_path '([^']+)':\s+(module '.*|No module named.*)", message):
        name = place[1].rpartition(".")[2]
        return f"unknown class {place[1]!r}{_at(keys)} ({place[2]}). {near_miss(name, _class_names(keys))}"
    if lacks := re.search(rf"{_GIVEN}the following arguments are required: (\S+)", message):
        setting = f"--{'.'.join(keys)}.{lacks[2].rstrip(',')}=VALUE" if keys else lacks[2]
        return f"{lacks[1]} lacks a setting{_at(keys)}: add {setting}"
    if lacks := re.search(rf"{_GIVEN}Requirement '([^']+)' not met", message):
        return f"{lacks[1]} needs a package that is not installed: pip install '{lacks[2]}'"
    return ""


def _key_error(message: str, parser: argparse.ArgumentParser) -> str:
    """What is wrong with the name of a setting; empty if it is something else."""
    if key := re.search(r"Subcommand '(\w+)' does not accept option '([^']+)'", message):
        return _unknown_key(key[1], key[2], parser)
    if stray := re.search(r"unrecognized arguments: (.+)", message, re.DOTALL):
        return _unknown_argument(stray[1], parser)
    if "arguments are required" in message and re.search(r"\b(model|data(\.\w+)?)\b", message):
        missing = re.sub(rf"\b({'|'.join(COMMANDS)})\.", "", message.rpartition(": ")[2])
        return f"{missing} is not given. Give a config: --config configs/FILE.yaml"
    return ""


def _plain(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip() and not _NOISE.match(line)]
    for pattern, words in _PLAIN:
        lines = [pattern.sub(words, line) for line in lines]
    return " ".join(lines).replace(" Given value:", ", got")


def _at(keys: list[str]) -> str:
    return f" at {'.'.join(keys)!r}" if keys else ""


def _unknown_key(command: str, key: str, parser: argparse.ArgumentParser) -> str:
    if key.split(".")[0] in COMMANDS:
        return (
            f"the config nests its settings under {key.split('.')[0]!r}. Write them at its top level "
            "('model:', 'data:', 'trainer:'), and name the command on the command line."
        )
    known = set(_dests(parser))
    head = key.split(".")[0]
    if head not in {dest.split(".")[0] for dest in known}:
        return f"{command} has no setting {head!r}. {near_miss(head, {dest.split('.')[0] for dest in known})}"
    siblings = {dest for dest in known if dest.startswith(head + ".")}
    return f"{command} has no setting {key!r}. {near_miss(key, siblings)}"


def _unknown_argument(stray: str, parser: argparse.ArgumentParser) -> str:
    option = re.split(r"[=\s]", stray)[0]
    if not option.startswith("-"):
        return f"nothing takes {option!r}: settings are given as --key=value or in --config FILE.yaml"
    key = option.lstrip("-")
    known = {dest for dest in _dests(parser) if "." in key or "." not in dest}
    return f"unknown option {option!r}. {near_miss(key, known)}"


def _dests(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.dest not in ("help", argparse.SUPPRESS):
            yield action.dest


def _class_names(keys: list[str]) -> set[str]:
    """Names of the classes that may stand at the innermost of ``keys``; of all bases if unknown."""
    places = [part for key in keys for part in key.split(".") if part in _BASES]
    bases: Iterable[type] = [_BASES[places[-1]]] if places else _BASES.values()
    ours = {c.__name__ for base in bases for c in _concrete(base)}
    return ours


def _concrete(base: type) -> Iterator[type]:
    children: list[type] = base.__subclasses__()
    for child in children:
        foreign_model = base is LightningModule and child.__module__.startswith("lightning.")
        if not _is_abstract(child) and not child.__name__.startswith("_") and not foreign_model:
            yield child
        yield from _concrete(child)


def _is_abstract(child: type) -> bool:
    # LightningModule has no ABCMeta, so inspect.isabstract does not see its abstract methods.
    return any(getattr(getattr(child, name, None), "__isabstractmethod__", False) for name in dir(child))


def _options_of(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    return [p for p in inspect.signature(getattr(import_module(module), name)).parameters if p != "self"]
