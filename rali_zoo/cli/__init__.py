"""Command line. One small module a command; ``main.py`` holds the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from rali_zoo.errors import UsageError, near_miss

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

_only_reading: ContextVar[bool] = ContextVar("only_reading", default=False)


def check_words(words: Sequence[str]) -> None:
    """Read a command line without running it.

    Args:
        words: the command's name, and what follows it.

    Raises:
        UsageError: no such command, option or value; details are on standard error.
    """
    from rali_zoo.cli.main import COMMANDS
    from rali_zoo.cli.training import COMMANDS as TRAINING
    from rali_zoo.cli.training import CommandLine, check_names

    if words[0] not in COMMANDS:
        raise UsageError(f"unknown command {words[0]!r}. {near_miss(words[0], COMMANDS)}")
    if words[0] in TRAINING:
        check_names(CommandLine.read(words))
        return
    token = _only_reading.set(True)
    try:
        dispatch(COMMANDS[words[0]][0], words)
    except SystemExit:
        raise UsageError(f"rali-zoo {' '.join(words)} cannot be read") from None
    finally:
        _only_reading.reset(token)


def dispatch(module: str, words: Sequence[str]) -> None:
    """Run a row of the table: the module's ``main(words)``, else its ``command`` by :func:`run_function`."""
    found = import_module(module)
    found.main(words) if hasattr(found, "main") else run_function(found.command, words)


def run_function(function: Callable[..., None], words: Sequence[str]) -> None:
    """Parse a command line by a function's signature and docstring, then call the function.

    Args:
        function: a typed function; its parameters become the command's options, ``--config`` reads them
            from a yaml file. One that is positional only is given by place: a ``list`` takes one word or more,
            one with a default may be left out. One whose type is a dataclass stands for its fields, an option
            each.
        words: the command's name, then what the user typed after it.
    """
    from jsonargparse import ActionConfigFile, ArgumentParser

    description, helps = _docstring(function)
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    # Left as strings, jsonargparse would resolve them by importing what stands under TYPE_CHECKING: torch.
    function.__annotations__ = hints
    positional = [p.name for p in parameters.values() if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    parser = ArgumentParser(prog=f"rali-zoo {words[0]}", description=description, allow_abbrev=False)
    shared = {name: hint for name, hint in hints.items() if is_dataclass(hint) and isinstance(hint, type)}
    for name, parameter in parameters.items():
        if name not in shared:
            _add(
                parser,
                name if name in positional else f"--{name}",
                hints[name],
                parameter.default,
                helps.get(name),
            )
            continue
        kinds, said = get_type_hints(shared[name]), _docstring(shared[name])[1]
        for field in fields(shared[name]):
            _add(parser, f"--{field.name}", kinds[field.name], field.default, said.get(field.name))
    parser.add_argument("--config", action=ActionConfigFile, help="yaml file with the options")
    given = parser.instantiate(parser.parse_args([_spelt(word) for word in words[1:]]))
    built = {n: kind(**{f.name: given[f.name] for f in fields(kind)}) for n, kind in shared.items()}
    if not _only_reading.get():
        named = {name: built.get(name, given.get(name)) for name in parameters if name not in positional}
        function(*(given[name] for name in positional), **named)


def _add(parser: ArgumentParser, name: str, hint: object, default: object, helped: str | None) -> None:
    """Add an option, or a word given by place, of a type."""
    from jsonargparse import ActionYesNo

    required = default is inspect.Parameter.empty or default is MISSING
    settings: dict[str, Any] = {} if required else {"default": default}
    if hint is bool:  # --explain, --no_explain
        parser.add_argument(name, action=ActionYesNo, help=helped, **settings)
        return
    if name.startswith("--"):
        settings |= {"required": required}
    elif get_origin(hint) is list:
        hint, settings = get_args(hint)[0], settings | {"nargs": "+" if required else "*"}
    elif not required:
        settings |= {"nargs": "?"}
    parser.add_argument(name, type=hint, help=helped, **settings)


def _spelt(word: str) -> str:
    """An option with hyphens between its words as the same with underscores; what follows a dot is a name."""
    if word[:2] != "--":
        return word
    option, equals, value = word.partition("=")
    head, dot, name = option[2:].partition(".")
    return f"--{head.replace('-', '_')}{dot}{name}{equals}{value}"


def _docstring(function: Callable[..., object]) -> tuple[str, dict[str, str | None]]:
    """First line of a function or dataclass, and the help of each parameter or attribute."""
    from docstring_parser import parse

    parsed = parse(inspect.getdoc(function) or "")
    helps = {p.arg_name: p.description for p in parsed.params}
    return parsed.short_description or "", helps
