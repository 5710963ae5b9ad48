"""What is written: one process at a time, whole or absent, never over somebody else's."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rali_zoo.outputs import (
    Output,
    OutputError,
    csv_cell,
    explained,
    from_csv_cell,
    locked,
    numbered,
    printable,
    publish,
)

JOB = {"model": "a"}


def make(target: Path, text: str = "ours", overwrite: bool = False, before_publishing=lambda: None) -> None:
    with Output(target, r"part\d", overwrite) as output:
        output.begin(JOB)
        output.save({})
        with output.part("part0") as path:
            path.write_text(text)
        before_publishing()
        output.publish(output.folder / "part0")
        output.clear()


def test_a_file_is_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    make(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "ours"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(OutputError, match="is there already"):
        make(tmp_path / "a.txt", "other")
    make(tmp_path / "a.txt", "other", overwrite=True)
    assert (tmp_path / "a.txt").read_text() == "other"


def test_a_file_that_came_meanwhile_is_kept_and_so_are_the_parts(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with pytest.raises(OutputError, match="is there already"):
        make(target, before_publishing=lambda: target.write_text("foreign"))
    with pytest.raises(OutputError, match="written by something else"):
        make(target)
    assert target.read_text() == "foreign" and (tmp_path / "a.txt.parts" / "part0").read_text() == "ours"
    target.unlink()
    make(target)
    assert target.read_text() == "ours" and not (tmp_path / "a.txt.parts").exists()


def test_whoever_waited_for_the_lock_looks_again(tmp_path: Path) -> None:
    second = Output(tmp_path / "a.txt", "part0")  # nothing is there yet
    make(tmp_path / "a.txt")
    with pytest.raises(OutputError, match="is there already"), second:
        second.begin(JOB)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_files_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    folder = tmp_path / "a.txt.parts"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="no job.json"):
        make(tmp_path / "a.txt")
    make(tmp_path / "a.txt", overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"job": 3}', b'{"job": {}}', b"[" * 100_000]
)
def test_damaged_state_is_one_clear_error(tmp_path: Path, damage: bytes) -> None:
    with Output(tmp_path / "a.txt", "part0") as output:
        output.begin(JOB)
        output.save({})
        with output.part("part0") as path:
            path.write_text("half")
    (output.folder / "job.json").write_bytes(damage)
    with pytest.raises(OutputError, match=r"job\.json|another run"):
        make(tmp_path / "a.txt")
    make(tmp_path / "a.txt", overwrite=True)
    assert (tmp_path / "a.txt").read_text() == "ours"


PROCESS = """
import sys, time
sys.path.insert(0, {tests!r})
from test_outputs import make
from pathlib import Path
make(Path(sys.argv[1]), sys.argv[2], before_publishing=lambda: time.sleep(0.3))
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    code = PROCESS.format(tests=str(Path(__file__).parent))
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(target), text], stderr=subprocess.PIPE, text=True)
        for text in ("one", "two", "three")
    ]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    won = [run.returncode == 0 for run in runs]
    assert won.count(True) == 1
    assert target.read_text() == ("one", "two", "three")[won.index(True)]
    assert all(
        "another process" in e or "there already" in e for e, w in zip(errors, won, strict=True) if not w
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_numbered_folders(tmp_path: Path) -> None:
    assert [numbered(tmp_path / "runs/mine").name for _ in range(3)] == ["mine", "mine-2", "mine-3"]


def test_without_links_a_name_that_is_taken_is_kept(tmp_path: Path, monkeypatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    for name in ("made", "taken"):
        (tmp_path / name).write_text(name)
    with pytest.raises(OutputError, match="is there already"):
        publish(tmp_path / "made", tmp_path / "taken")
    publish(tmp_path / "made", tmp_path / "new")
    assert (tmp_path / "new").read_text() == "made" and (tmp_path / "taken").read_text() == "taken"


# ---- the system says no ----


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "nput/output error"),
    ],
)
def test_a_system_that_refuses_is_one_line_and_the_run_goes_on_later(
    tmp_path, monkeypatch, number, said
) -> None:
    target = tmp_path / "a.txt"
    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda a, b: _refuse(number) if "part0" in str(b) else replace(a, b))
        with pytest.raises(OutputError, match=f"a.txt cannot be written: .*{said}.*the same command goes on"):
            make(target)
    assert not list((tmp_path / "a.txt.parts").glob("*.tmp"))
    make(target)
    assert target.read_text() == "ours"


def _refuse(number: int) -> None:
    raise OSError(number, os.strerror(number))


def test_names_that_cannot_be() -> None:
    with (
        pytest.raises(OutputError, match="the name is too long"),
        Output(f"{'x' * 300}.txt", "part0") as output,
    ):
        output.begin(JOB)
    with (
        pytest.raises(OutputError, match="part of its path is a file"),
        locked(Path(__file__) / "a" / "b", "b"),
    ):
        pass
    with pytest.raises(OutputError, match="cannot be written"), locked(Path("/proc/none/lock"), "b"):
        pass
    with pytest.raises(BrokenPipeError), explained("a"):
        raise BrokenPipeError(errno.EPIPE, "gone")


# ---- names ----


@given(st.text())
def test_cells_come_back_and_none_is_a_formula(text: str) -> None:
    cell = csv_cell(text)
    assert from_csv_cell(cell) == text and cell[:1] not in tuple("=+-@\t\r\n＝＋－＠")
    assert all(c.isprintable() for c in printable(text))


def test_terminals_see_no_control_characters() -> None:
    assert printable("a\x1b[31mb\x9b\u202e.jpg") == r"a\x1b[31mb\x9b\u202e.jpg"
    assert printable(os.fsdecode(b"a\xff.jpg")) == r"a\xff.jpg" and printable("ä 猫.jpg") == "ä 猫.jpg"


def test_a_full_disk_under_a_checkpoint_is_one_line(tmp_path, monkeypatch):
    import contextlib

    import torch

    from rali_zoo.trainers import checkpoint_io

    @contextlib.contextmanager
    def full(_):
        yield Path("/dev/full")

    monkeypatch.setattr(checkpoint_io, "atomic_path", full)
    with pytest.raises(OutputError, match=r"last\.ckpt cannot be written: the disk is full") as error:
        checkpoint_io.AtomicCheckpointIO().save_checkpoint(
            {"state_dict": torch.zeros(100_000)}, tmp_path / "last.ckpt"
        )
    assert "\n" not in str(error.value)
