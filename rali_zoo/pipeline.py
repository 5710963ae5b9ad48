"""Recipes of several commands: each stage a process, skipped when nothing it depends on has changed.

A stage is one ``rali-zoo`` command line. What it was made from (its words, the configs and files that it
names, what the stages before it wrote) is hashed into one json file a stage below ``FOLDER/stages``; with the
same hash and untouched outputs it is skipped. A stage that was killed is resumed: ``fit`` from its last
checkpoint, ``describe`` from its last part. Libraries that do this (Snakemake, DVC) want a repository or a
scheduler of their own; this needs a folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from rali_zoo.errors import RaliZooError, UsageError
from rali_zoo.outputs import write_state
from rali_zoo.paths import sha256, text_sha256
from rali_zoo.recipe import Recipe, Stage
from rali_zoo.settings import read_settings

Action = Literal["skip", "run", "resume"]
_TAIL = 15
_GRACE_S = 60.0
_TICK_S = 0.2
_PATIENCE_S = 10.0  # processes that were killed take a moment to go


class StageError(RaliZooError):
    """A stage ended with an error, or cannot be started."""


@dataclass(frozen=True)
class Decision:
    """What is to be done with a stage, and why.

    Attributes:
        action: ``skip``, ``run`` anew, or ``resume`` after a kill or a failure.
        reason: in words.
    """

    action: Action
    reason: str


# ---- hashes ----


def content_hash(path: Path) -> str:
    """Hash of a file, or of the names and contents of all files of a folder; empty if it is not there."""
    if path.is_file():
        return sha256(path)
    if not path.is_dir():
        return ""
    whole = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        whole.update(f"{file.relative_to(path)}\0{sha256(file)}\n".encode())
    return whole.hexdigest()


class State:
    """The json file of a stage: its hash, how it ended, and its outputs as they were then.

    Args:
        folder: of the recipe's state.
        stage: whose.
    """

    def __init__(self, folder: Path, stage: Stage) -> None:
        self.path, self.log = folder / f"{stage.name}.json", folder / f"{stage.name}.log"
        self.lock = folder / f"{stage.name}.lock"
        self.content: dict[str, Any] = _state(self.path) if self.path.is_file() else {}

    def write(self, content: Mapping[str, object]) -> None:
        """Replace the file, whole."""
        self.content = dict(content)
        write_state(self.path, content)

    def output_hash(self, path: str) -> str:
        """:func:`content_hash`, without reading a file of the size and time that it was recorded with."""
        known = self.content.get("outputs", {}).get(path)
        if known is not None and known["stamp"] is not None and known["stamp"] == _stamp(Path(path)):
            return str(known["sha256"])
        return content_hash(Path(path))


@dataclass(frozen=True)
class _Output:
    sha256: str
    stamp: list[int] | None


@dataclass(frozen=True)
class _Content:
    key: str
    status: Literal["running", "failed", "done"]
    words: list[str]
    exit_status: int | None = None
    outputs: dict[str, _Output] = field(default_factory=dict)
    seconds: float = 0.0


def _state(path: Path) -> dict[str, Any]:
    """What the file of a stage holds."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path} cannot be read ({error}); remove it to run the stage") from None
    read_settings(_Content, found, f"{path} (remove it to run the stage)", error=StageError)
    return cast("dict[str, Any]", found)


def _stamp(path: Path) -> list[int] | None:
    """Size and modification time of a file; ``None`` for a folder, whose time says little."""
    if not path.is_file():
        return None
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


# ---- the runner ----


class Runner:
    """Runs the stages of a recipe, one after the other.

    Args:
        recipe: what to run.
        say: gets a line for each thing worth knowing.
        check: reads the words of a stage before anything is touched, and raises for what it cannot read.
    """

    def __init__(
        self,
        recipe: Recipe,
        say: Callable[[str], None] = print,
        check: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        self.recipe, self.say, self.check = recipe, say, check
        self.folder = Path(recipe.folder) / "stages"
        self.states = {stage.name: State(self.folder, stage) for stage in recipe.stages}

    def key(self, stage: Stage) -> str:
        """Hash of all that a stage is made from.

        Raises:
            StageError: a file that it names is not there.
        """
        files = {}
        for path in stage.inputs:
            files[path] = content_hash(Path(path))
            if not files[path]:
                raise StageError(f"stage {stage.name}: {path} is not there, and no stage makes it")
        for need in stage.needs:
            files |= {p: self.states[need].output_hash(p) for p in self.recipe.stage(need).outputs}
        made_from = {"words": [*stage.launcher, *stage.run], "files": files}
        return text_sha256(json.dumps(made_from, sort_keys=True))

    def decide(self, stage: Stage, force: bool) -> Decision:
        """Whether a stage is skipped, run anew or resumed; what it needs must be done."""
        state, before = self.states[stage.name], self.states[stage.name].content
        if force:
            return Decision("run", "forced")
        if not before:
            return Decision("run", "not run yet")
        if before["key"] != self.key(stage):
            return Decision("run", "its words, configs, inputs or the stages before it have changed")
        if before["status"] != "done":
            return Decision("resume", "killed before" if before["status"] == "running" else "failed before")
        gone = [f"{path} is gone" for path in stage.outputs if not Path(path).exists()]
        other = (
            f"{path} is not what the stage wrote"
            for path in stage.outputs
            if state.output_hash(path) != before.get("outputs", {}).get(path, {}).get("sha256")
        )
        reason = gone[0] if gone else next(other, "")
        return Decision("run", reason) if reason else Decision("skip", "unchanged")

    def plan(self, until: str | None = None, force: str | None = None) -> list[tuple[Stage, Decision]]:
        """What a run would do now, without doing it."""
        forced = self.recipe.named(force) if force else set()
        found: list[tuple[Stage, Decision]] = []
        stale: set[str] = set()
        for stage in self.recipe.upto(until):
            waits = [need for need in stage.needs if need in stale]
            if waits:
                decision = Decision("run", f"after {', '.join(waits)}")
            else:
                decision = self.decide(stage, stage.name in forced)
            if decision.action != "skip":
                stale.add(stage.name)
            found.append((stage, decision))
        return found

    def run(self, until: str | None = None, force: str | None = None) -> None:
        """Run what is not done.

        Args:
            until: stop after this stage; only it and what it needs are run.
            force: run this stage anew though nothing has changed.

        Raises:
            StageError: a stage failed, is being run by another process, or did not write its outputs.
        """
        forced = self.recipe.named(force) if force else set()
        stages = self.recipe.upto(until)
        for stage in stages:
            self._check(stage)
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, stage in enumerate(stages, 1):
            title = f"[{number}/{len(stages)}] {stage.name}"
            with _locked(stage, self.states[stage.name].lock) as lock:
                # another process may have ended it since this one looked
                self.states[stage.name] = State(self.folder, stage)
                decision = self.decide(stage, stage.name in forced)
                if decision.action == "skip":
                    self.say(f"{title}: skipped, {decision.reason}")
                    continue
                self.say(f"{title}: {decision.action} ({decision.reason}), log {self.states[stage.name].log}")
                self._run(stage, decision, title, lock)

    def _check(self, stage: Stage) -> None:
        """Refuse before anything is touched: a command line that cannot be read, and files of somebody else's.

        Raises:
            StageError: what a stage would replace was not written by an earlier run of it.
        """
        if not stage.launcher and self.check is not None:
            try:
                self.check([word for word in stage.run if not self._made(word)])
            except UsageError as error:
                raise StageError(f"stage {stage.name}: {error}") from None
        if not self.states[stage.name].content:
            for path in stage.written:
                if path.exists():
                    raise StageError(
                        f"stage {stage.name} would replace {path}, which no run of this recipe has written; move it "
                        "away, or have the recipe write elsewhere (--vars.NAME=VALUE)"
                    )

    def _made(self, word: str) -> bool:
        """Whether a word names a config that a stage writes, which cannot be read yet."""
        outputs = {path for stage in self.recipe.stages for path in stage.outputs}
        return word.startswith("--config=") and word.removeprefix("--config=") in outputs

    def _run(self, stage: Stage, decision: Decision, title: str, lock: int) -> None:
        state, key, started = self.states[stage.name], self.key(stage), time.monotonic()
        resumed = decision.action == "resume"
        whole = resumed and stage.command != "fit" and all(Path(p).exists() for p in stage.outputs)
        if not whole:  # else it was killed between its last act, which is to write them, and ours
            if not resumed or (stage.last_checkpoint and not stage.last_checkpoint.is_file()):
                _clear(stage)
            state.write({"key": key, "status": "running", "words": list(stage.run)})
            code = self._process(stage, resumed, title, lock)
            if code != 0:
                state.write({"key": key, "status": "failed", "words": list(stage.run), "exit_status": code})
                raise StageError(_failure(stage, state.log, code, self.recipe.again))
        missing = [path for path in stage.outputs if not Path(path).exists()]
        if missing:
            state.write({"key": key, "status": "failed", "words": list(stage.run), "exit_status": 0})
            raise StageError(f"stage {stage.name} ended well, but did not write {', '.join(missing)}")
        outputs = {p: {"sha256": content_hash(Path(p)), "stamp": _stamp(Path(p))} for p in stage.outputs}
        seconds = round(time.monotonic() - started, 1)
        state.write(
            {"key": key, "status": "done", "words": list(stage.run), "outputs": outputs, "seconds": seconds}
        )
        self.say(f"{title}: done in {seconds:.0f} s")

    def _process(self, stage: Stage, resumed: bool, title: str, lock: int) -> int:
        """Exit status of a stage's process; its output goes to the log."""
        words = [*stage.launcher, sys.executable, "-m", "rali_zoo", *stage.run]
        last = stage.last_checkpoint
        if resumed and last is not None and last.is_file():
            words.append(f"--ckpt_path={last}")
        with self.states[stage.name].log.open("a" if resumed else "w") as log:
            log.write(f"$ {' '.join(words)}\n")
            log.flush()
            # The lock is the child's too: it is held as long as either lives.
            child = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, pass_fds=(lock,))
            with _ending(child):
                return _wait(child, title)


def _clear(stage: Stage) -> None:
    """Remove what an earlier run left, which had other settings or was stopped before it could be resumed."""
    for path in stage.written:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _failure(stage: Stage, log: Path, code: int, again: str) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL:]
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    shown = "\n".join(f"  | {line}" for line in lines)
    return (
        f"stage {stage.name} {ended}. The end of {log}:\n{shown}\n"
        f"Once that is mended, go on with: {again}\n"
        f"By hand: rali-zoo {' '.join(stage.run)}"
    )


# ---- processes ----


@contextmanager
def _locked(stage: Stage, path: Path) -> Iterator[int]:
    """Hold a stage's lock; the kernel drops it when the last process that has it ends.

    Not filelock's: the child inherits this one, so that a stage whose parent was killed keeps it.
    """
    with path.open("w") as file:
        end = time.monotonic() + _PATIENCE_S
        while not _free(file.fileno()):
            if time.monotonic() > end:
                raise StageError(
                    f"stage {stage.name} is being run by another process, which holds {path}; "
                    "wait for it to end, or end it"
                )
            time.sleep(_TICK_S)
        yield file.fileno()


def _free(file: int) -> bool:
    """Take the lock, if nobody has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _ending(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the child when this process is asked to end; Ctrl-C has reached it already."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            child.terminate()
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(child: subprocess.Popen[bytes], title: str) -> int:
    """Wait with a clock on the terminal, if there is one."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(title.replace("[", r"\["))
        while True:
            try:
                return child.wait(_TICK_S if console.is_terminal else None)
            except subprocess.TimeoutExpired:
                continue


def show(plan: Sequence[tuple[Stage, Decision]], say: Callable[[str], None] = print) -> None:
    """Print a plan: a line a stage with what would be done, why, and its command line."""
    width = max(len(stage.name) for stage, _ in plan)
    for stage, decision in plan:
        say(f"{stage.name:{width}}  {decision.action:6}  {decision.reason}")
        say(f"{'':{width}}  $ rali-zoo {' '.join(stage.run)}")


def seconds(folder: str | os.PathLike[str]) -> Mapping[str, float]:
    """How long each finished stage below a recipe's folder took, in seconds."""
    files = sorted((Path(folder) / "stages").glob("*.json"))
    contents = {file.stem: _state(file) for file in files}
    return {name: float(c.get("seconds", 0)) for name, c in contents.items() if c["status"] == "done"}
