"""The command table: only the module of the command that was asked for is imported."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from rali_zoo.cli import dispatch
from rali_zoo.errors import ConfigError, RaliZooError, UsageError, near_miss

#: Command to (module, one line of help). The module's ``command`` is run by :func:`~rali_zoo.cli.run_function`; where
#: it has a ``main``, that gets the command's name and what follows it.
COMMANDS = {
    "fit": ("rali_zoo.cli.training", "train a model, then test it: fit --config FILE.yaml"),
    "validate": ("rali_zoo.cli.training", "run the validation sets through a checkpoint"),
    "test": ("rali_zoo.cli.training", "test a checkpoint: test --ckpt_path runs/NAME/checkpoints/best.ckpt"),
    "predict": ("rali_zoo.cli.training", "write a checkpoint's predictions for the data of a config"),
    "score": ("rali_zoo.cli.score", "score photos and folders of photos with a model"),
    "describe": ("rali_zoo.cli.describe", "let a model describe photographs, or the images of a data set"),
    "trl": ("rali_zoo.cli.trl", "reinforce a reasoner with TRL's trainer on our data and rewards"),
    "route": ("rali_zoo.cli.route", "SRCC against the share of uncertain images sent to a better scorer"),
    "uncertainty": ("rali_zoo.cli.uncertainty", "coverage and width of the intervals that a scorer gives"),
    "teacher-scores": ("rali_zoo.cli.teacher_scores", "mean and std of a teacher's scores as a data set"),
    "calibrate": ("rali_zoo.cli.calibrate", "bring the scores of several data sets to one scale"),
    "analyze": ("rali_zoo.cli.analyze", "texts against images, attention, domain gaps, ablations"),
    "pipeline": ("rali_zoo.cli.pipeline", "run a recipe of several commands; what is done is skipped"),
    "convert": ("rali_zoo.cli.convert", "any trained scorer to one safetensors file that needs nothing else"),
    "export": ("rali_zoo.cli.export", "a trained scorer for ONNX Runtime or OpenVINO, float32 or int8"),
    "benchmark": ("rali_zoo.cli.benchmark", "run a suite of models and data sets to results files"),
    "check-results": ("rali_zoo.cli.check_results", "check results files, such as a submission"),
    "leaderboard": ("rali_zoo.cli.leaderboard", "tables and a page from results files"),
    "serve": ("rali_zoo.cli.serve", "score images over HTTP, on this machine by default"),
    "app": ("rali_zoo.cli.app", "a page to drop images on: scores, explanations, comparisons (needs gradio)"),
    "list": ("rali_zoo.cli.listing", "what there is: data sets, backbones, text encoders, models"),
    "show": ("rali_zoo.cli.show", "one data set, backbone or model in detail"),
}

_KEPT = "What was written whole is kept, and the same command goes on from there."
#: What to do about an error of the system.
_REMEDIES = {
    errno.ENOSPC: f". Make room, or write elsewhere. {_KEPT}",
    errno.EDQUOT: f". Make room, or write elsewhere. {_KEPT}",
    errno.EFBIG: f". The system limits the size of files. {_KEPT}",
    errno.EACCES: ". Write elsewhere, or change the permissions.",
    errno.EROFS: ". Write elsewhere: RALI_ZOO_CACHE=FOLDER for the cache, a command's own option for the rest.",
    errno.ENAMETOOLONG: ". Choose a shorter name.",
    errno.EMFILE: ". Raise the limit of open files (ulimit -n), or use fewer workers.",
}


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {line}" for name, (_, line) in COMMANDS.items())
    return (
        "usage: rali-zoo COMMAND [options]\n\nImage quality assessment with RALI and its relatives.\n\n"
        f"commands:\n{rows}\n\n"
        "options:\n"
        "  -h, --help   this table; rali-zoo COMMAND --help says more of one command\n"
        "  --version    the version of the package\n"
        "  --plugin MODULE   import a module of yours first: its models, data sets and metrics are known then\n"
        "  --debug      show the full traceback of an error (or set RALI_ZOO_DEBUG=1)\n"
    )


def _version() -> str:
    try:
        return version("rali-zoo")
    except PackageNotFoundError:
        return "unknown (not installed: pip install -e .)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``rali-zoo``; those of the process by default.

    Returns:
        Exit status: 0 done, 1 an error of ours, 2 a command line that cannot be read, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("RALI_ZOO_DEBUG", "0") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    words, plugins = _plugins(words)
    if not words or words[0] not in COMMANDS:
        return _without_command(words)
    # Threads that wait by spinning make torch several times slower on cores that are shared with others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        for plugin in plugins:
            _import_plugin(plugin)
        dispatch(COMMANDS[words[0]][0], words)
    except (RaliZooError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of a pipe (head) has left: nothing is wrong
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if debug:
            traceback.print_exc()
        print(f"rali-zoo {words[0]}: error: {_reason(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as stop:
        # What goes on where it was stopped, for those commands that state it.
        print(f"rali-zoo {words[0]}: " + (str(stop) or "interrupted"), file=sys.stderr)
        return 130
    return 0


def _without_command(words: list[str]) -> int:
    """Help, the version, or an error; the exit status."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(), end="")
        return 0
    if words[0] == "--version":
        print(f"rali-zoo {_version()}")
        return 0
    print(f"rali-zoo: error: {_unknown(words)}", file=sys.stderr)
    return 2


def _plugins(words: list[str]) -> tuple[list[str], list[str]]:
    """The words without ``--plugin MODULE``, and the modules."""
    kept: list[str] = []
    modules: list[str] = []
    following = iter(words)
    for word in following:
        if word == "--plugin":
            modules.append(next(following, ""))
        elif word.startswith("--plugin="):
            modules.append(word.removeprefix("--plugin="))
        else:
            kept.append(word)
    return kept, modules


def _import_plugin(module: str) -> None:
    """Import a module that the user named, from the working directory too; raises :class:`ConfigError`."""
    sys.path.insert(0, os.getcwd())
    try:
        import_module(module)
    except Exception as error:  # it is the user's code: anything may be raised
        raise ConfigError(f"--plugin {module}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(os.getcwd())  # files that are read later have no say in what is imported


def _reason(error: Exception) -> str:
    """An error in one line or few; one of the system with what helps."""
    if isinstance(error, RaliZooError) or not isinstance(error, OSError) or error.errno is None:
        return str(error)
    place = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{place}{_REMEDIES.get(error.errno, '')}"


def _unknown(words: list[str]) -> str:
    if words[0] == "domain-gap":
        return "'domain-gap' is now a part of analyze: rali-zoo analyze domains --help"
    commands = [word for word in words if word in COMMANDS]
    if words[0].startswith("-") and commands:
        place = words.index(commands[0])
        fixed = " ".join([commands[0], *words[:place], *words[place + 1 :]])
        return f"the command comes first, its options after it: rali-zoo {fixed}"
    return f"unknown command {words[0]!r}. {near_miss(words[0], COMMANDS)} See rali-zoo --help."
