"""Command line. One small module a command; ``main.py`` holds the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from typing import get_args, get_origin, get_type_hints

from rali_zoo.errors import UsageError, near_miss

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
    from jsonargparse import ActionConfigFile, ActionYesNo, ArgumentParser

    description, helps = _docstring(function)
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    # Left as strings, jsonargparse would resolve them by importing what stands under TYPE_CHECKING: torch.
    function.__annotations__ = hints
    positional = [p.name for p in parameters.values() if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    parser = ArgumentParser(prog=f"rali-zoo {words[0]}", description=description, allow_abbrev=False)
    for name in positional:
        default = parameters[name].default
        if get_origin(hints[name]) is list:
            several = (
                {"nargs": "+"} if default is inspect.Parameter.empty else {"nargs": "*", "default": default}
            )
            parser.add_argument(name, **several, type=get_args(hints[name])[0], help=helps.get(name))
        elif default is inspect.Parameter.empty:
            parser.add_argument(name, type=hints[name], help=helps.get(name))
        else:
            parser.add_argument(name, nargs="?", type=hints[name], default=default, help=helps.get(name))
    switches = [name for name, hint in hints.items() if hint is bool and name not in positional]
    for name in switches:  # --explain, --no_explain
        parser.add_argument(
            f"--{name}", action=ActionYesNo, default=parameters[name].default, help=helps.get(name)
        )
    shared = {name: hint for name, hint in hints.items() if is_dataclass(hint) and isinstance(hint, type)}
    parser.add_function_arguments(function, as_group=False, skip={*positional, *switches, *shared})
    for kind in shared.values():
        kinds, said = get_type_hints(kind), _docstring(kind)[1]
        for field in fields(kind):
            if kinds[field.name] is bool:
                helped = said.get(field.name)
                parser.add_argument(f"--{field.name}", action=ActionYesNo, default=field.default, help=helped)
                continue
            required = field.default is MISSING
            default = {} if required else {"default": field.default}
            parser.add_argument(
                f"--{field.name}",
                type=kinds[field.name],
                required=required,
                help=said.get(field.name),
                **default,
            )
    parser.add_argument("--config", action=ActionConfigFile, help="yaml file with the options")
    given = parser.instantiate_classes(parser.parse_args([_spelt(word) for word in words[1:]]))
    built = {n: kind(**{f.name: given[f.name] for f in fields(kind)}) for n, kind in shared.items()}
    if not _only_reading.get():
        named = {name: built.get(name, given.get(name)) for name in parameters if name not in positional}
        function(*(given[name] for name in positional), **named)


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
