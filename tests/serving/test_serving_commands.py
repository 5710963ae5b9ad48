"""``rali-zoo serve`` and ``rali-zoo app``: light help, and what is said when they cannot start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rali_zoo.cli.main import main


@pytest.mark.parametrize("command", ["serve", "app"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from rali_zoo.cli.main import main\n"
        f"try: main(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'gradio', 'starlette', 'uvicorn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--port" in done.stdout and done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [("serve", "uvicorn", "serve"), ("serve", "python_multipart", "serve"), ("app", "gradio", "app")],
)
def test_a_missing_extra_is_named(command, package, extra, monkeypatch, capsys) -> None:
    for module in ("http", "server", "app"):
        monkeypatch.delitem(sys.modules, f"rali_zoo.serving.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    assert main([command]) == 1
    said = capsys.readouterr().err
    assert repr(package) in said and f"rali-zoo[{extra}]" in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--port=99999"], "between 0 and 65535"),
        (["--host=300.1.2.3"], "cannot listen at 300.1.2.3:8000"),
        (["--max_images=0"], "the limit images is 0"),
    ],
)
def test_settings_are_refused_before_a_model_is_loaded(words, reason, monkeypatch, capsys) -> None:
    pytest.importorskip("uvicorn", reason="pip install 'rali-zoo[serve]'")
    pytest.importorskip("python_multipart", reason="pip install 'rali-zoo[serve]'")
    monkeypatch.setattr("rali_zoo.cli.serve.load", lambda *_: pytest.fail("the model was loaded"))
    assert main(["serve", *words]) == 1
    assert reason in capsys.readouterr().err
