"""The command table: light, near misses, exit codes."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import types
from pathlib import Path

import pytest

from rali_zoo.cli import main as table
from rali_zoo.errors import ConfigError
from rali_zoo.paths import cache_dir

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
    """Well below the 10 s of importing Lightning, in processor time, which a busy machine does not lengthen much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "rali_zoo", "list"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


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


# ---- errors of the system, plug-ins -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.EIO])
def test_an_error_of_the_system_is_one_line(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: list[str]) -> None:
        raise OSError(number, os.strerror(number), "/full/out.csv")

    monkeypatch.setitem(table.COMMANDS, "toy", ("toy_system", ""))
    monkeypatch.setitem(sys.modules, "toy_system", types.SimpleNamespace(main=fail))
    assert table.main(["toy"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"rali-zoo toy: error: {os.strerror(number)}: /full/out.csv")
    assert len(error.splitlines()) == 1


def test_a_cache_that_cannot_be_made_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match="set RALI_ZOO_CACHE"):
        cache_dir("x")


def test_a_plugin_is_imported_from_here_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_plugin.py").write_text("import sys; sys.plugged = True")
    before = list(sys.path)
    assert table.main(["list", "--plugin", "my_plugin"]) == 0 and sys.plugged and sys.path == before
    Path("broken.py").write_text("1 / 0")
    assert table.main(["list", "--plugin=broken"]) == 1
    assert "--plugin broken: ZeroDivisionError" in capsys.readouterr().err
    assert table.main(["list", "--plugin=absent_module"]) == 1


# ---- names are checked before heavy imports ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--config", "configs/nite.yaml"],
            "there is no config 'configs/nite.yaml'. Did you mean 'configs/note.yaml'?",
        ),
        (["--model=RALLI"], "unknown class 'RALLI' at 'model'. Did you mean 'RALI'?"),
        (
            ["--model=RALI", "--model.bakbone=rali:tiny"],
            "RALI has no option 'bakbone'. Did you mean 'backbone'?",
        ),
        (["--model=RALI", "--model.backbone=tim:x"], "unknown backbone scheme 'tim'. Did you mean 'timm'?"),
        (["--data.trian=koniq10k"], "unknown option '--data.trian'. Did you mean '--data.train'?"),
        (["--trainer.max_epoch=3"], "Did you mean '--trainer.max_epochs'?"),
        (["--config", "modle.yaml"], "modle.yaml: fit has no setting 'modle'. Did you mean 'model'?"),
        (["--config", "deep.yaml"], "fit has no setting 'data.trian'. Did you mean 'data.train'?"),
        (["--config", "nested.yaml"], "nests its settings under 'fit'"),
    ],
)
def test_a_typo_costs_no_heavy_import(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "note.yaml").write_text("")
    (tmp_path / "modle.yaml").write_text("modle: {class_path: RALI}")
    (tmp_path / "deep.yaml").write_text("data: {trian: koniq10k}")
    (tmp_path / "nested.yaml").write_text("fit: {model: {class_path: RALI}}")
    code = (
        "import sys; from rali_zoo.cli.main import main\n"
        f"status = main(['fit', *{words!r}])\n"
        f"print('STATUS', status, *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert said in done.stderr, done.stderr
    assert done.stdout.split()[-2:] in (["STATUS", "2"], ["STATUS", "1"]), done.stdout


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_help_of_training_starts_with_what_people_need(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported_by(command, "--help") == set()
    assert table.main([command, "--help"]) == 0
    page = capsys.readouterr().out
    assert "examples:" in page and "--help=all" in page and len(page.splitlines()) < 40
