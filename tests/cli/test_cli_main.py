"""The command table: light, near misses, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types

import pytest

from rali_zoo.cli import main as table
from rali_zoo.errors import ConfigError

HEAVY = ("torch", "lightning", "pandas", "transformers", "numpy", "timm", "open_clip")


def imported_by(*words: str) -> set[str]:
    """Heavy packages that a command imports, in a process of its own."""
    code = (
        "import sys; from rali_zoo.cli.main import main\n"
        f"try: status = main({list(words)!r})\n"
        "except SystemExit as stop: status = stop.code\n"
        f"print('STATUS', status, *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].split()
    assert last[:2] == ["STATUS", "0"], done.stdout + done.stderr
    return set(last[2:])


@pytest.mark.parametrize(
    "words",
    [["--help"], [], ["--version"], ["list"], ["list", "--help"], ["score", "--help"], ["show", "koniq10k"]],
)
def test_light_commands_import_nothing_heavy(words: list[str]) -> None:
    assert imported_by(*words) == set()


def test_help_is_fast() -> None:
    """Well below the 10 s of importing Lightning, also on a machine that is busy."""
    times = []
    for _ in range(3):
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "rali_zoo", "list"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - start)
    assert min(times) < 1.5


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in table.COMMANDS)


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["fitt"]) == 2
    assert "unknown command 'fitt'. Did you mean 'fit'?" in capsys.readouterr().err


def test_options_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["--config", "c.yaml", "fit"]) == 2
    assert "rali-zoo fit --config c.yaml" in capsys.readouterr().err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A command ``fail`` whose ``main`` the test sets."""
    module = types.ModuleType("failing_command")
    monkeypatch.setitem(sys.modules, "failing_command", module)
    monkeypatch.setitem(table.COMMANDS, "fail", ("failing_command", "it fails"))
    monkeypatch.delenv("RALI_ZOO_DEBUG", raising=False)
    return module


def raising(error: BaseException) -> object:
    def main(words: list[str]) -> None:
        raise error

    return main


def test_errors_of_ours_have_no_traceback(
    failing: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.main = raising(ConfigError("this and that"))  # type: ignore[attr-defined]
    assert table.main(["fail"]) == 1
    assert capsys.readouterr().err == "rali-zoo fail: error: this and that\n"
    assert table.main(["fail", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_debug_by_environment(
    failing: types.ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RALI_ZOO_DEBUG", "1")
    failing.main = raising(ConfigError("this and that"))  # type: ignore[attr-defined]
    assert table.main(["fail"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_errors_of_others_are_not_hidden(failing: types.ModuleType) -> None:
    failing.main = raising(ZeroDivisionError())  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        table.main(["fail"])


def test_interrupt(failing: types.ModuleType) -> None:
    failing.main = raising(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert table.main(["fail"]) == 130


def test_a_command_gets_its_name_and_the_rest(failing: types.ModuleType) -> None:
    got: list[list[str]] = []
    failing.main = got.append  # type: ignore[attr-defined]
    assert table.main(["fail", "a", "--b=1"]) == 0
    assert got == [["fail", "a", "--b=1"]]
