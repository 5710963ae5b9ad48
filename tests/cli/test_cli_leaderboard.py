"""``rali-zoo leaderboard``: files written, staleness found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rali_zoo.cli.main import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
from board_fixtures import make_results  # noqa: E402


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("results"))


def command(results: Path, output: Path, *more: str) -> int:
    return main(["leaderboard", "--results", str(results), "--output", str(output), "--no_images", *more])


def test_written_then_checked(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(results, tmp_path) == 0
    assert "7 models on 3 data sets" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"leaderboard.md", "leaderboard.csv", "page"}
    assert "Reported by authors" in (tmp_path / "leaderboard.md").read_text()  # of a results file alone
    assert "up to date" in check(results, tmp_path, capsys)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert command(results, tmp_path) == 0
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def check(results: Path, output: Path, capsys: pytest.CaptureFixture[str], status: int = 0) -> str:
    capsys.readouterr()
    assert command(results, output, "--check") == status
    told = capsys.readouterr()
    return told.out + told.err


def test_stale_files_are_listed(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = check(results, tmp_path, capsys, status=1)
    assert all(f"{name}: missing" in told for name in ("leaderboard.md", "leaderboard.csv"))
    assert "page" not in told.replace(str(tmp_path), "")  # may be left out of a repository
    assert not list(tmp_path.iterdir())  # a check writes nothing
    command(results, tmp_path)
    page = tmp_path / "leaderboard.md"
    page.write_text(page.read_text().replace("good", "best", 1))
    (tmp_path / "page" / "table.js").write_text("")
    (tmp_path / "page" / "plots.js").unlink()
    told = check(results, tmp_path, capsys, status=1)
    assert "leaderboard.md: differs from line" in told and "table.js: differs" in told
    assert "leaderboard.csv" not in told and "plots.js" not in told


def test_reported_file(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "rows: [{model: M, values: {spaq: [0.5]}}]"
    table = f"tables: [{{id: a, title: A table, source: Them, metrics: [SRCC], datasets: [spaq], {rows}}}]"
    (tmp_path / "reported.yaml").write_text(table)
    assert command(results, tmp_path) == 0
    assert "### A table" in (tmp_path / "leaderboard.md").read_text()
    assert command(results, tmp_path, "--reported", str(tmp_path / "none.yaml")) == 1
    assert "none.yaml" in capsys.readouterr().err


def test_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "results", tmp_path) == 1
    assert "rali-zoo benchmark" in capsys.readouterr().err


def test_help_is_light() -> None:
    code = (
        "import sys; from rali_zoo.cli.main import main\n"
        "try: main(['leaderboard', '--help'])\n"
        "except SystemExit: pass\n"
        "print('HEAVY', *[m for m in ('torch', 'numpy', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--check" in done.stdout and done.stdout.splitlines()[-1] == "HEAVY"
