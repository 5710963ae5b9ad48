"""A table that is the same however often its run was killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rali_zoo.data.sources import Item
from rali_zoo.outputs import OutputError
from rali_zoo.scoring import sink as sink_module
from rali_zoo.scoring.pipeline import slices
from rali_zoo.scoring.sink import Job, Sink
from rali_zoo.types import Score

JOB = Job(["photos"], "/", "1/1", "toy", "abc", "exact", "float32")
ODD = os.fsdecode(b"odd \xff\n\"'.jpg")


def items(count):
    return [Item(ODD if i == 3 else f"{i}.jpg", error="why" if i % 10 == 7 else "") for i in range(count)]


def scores(batch):
    return [
        Score(None, error=i.error, path=i.path) if i.error else Score(1 + len(i.path) / 7, 0.5, path=i.path)
        for i in batch.items
    ]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(sink_module, "PART", 8)
    monkeypatch.setattr(sink_module, "_GROUP", 20)


def work(output, count=50, stop=10**9, order=list, job=JOB, batch_size=3):
    """Score until ``stop`` batches are done; whether the table was finished."""
    with Sink(output) as sink:
        sink.start(job, items(count), batch_size)
        for done, batch in enumerate(order(slices(sink.missing(), batch_size))):
            if done == stop:
                return False
            sink.add(batch.part, batch.start, scores(batch))
        assert sink.done == sink.total == count
        assert sink.finish() == sum(i.error != "" for i in items(count))
    return True


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_stopped_runs_end_in_the_same_bytes(tmp_path, suffix):
    whole, broken = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    assert work(whole)
    rounds = 0
    while not work(broken, stop=4):
        rounds += 1
    assert rounds >= 4 and whole.read_bytes() == broken.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [whole.name, broken.name]


def test_rows_in_any_order(tmp_path):
    def shuffled(batches):
        found = list(batches)
        random.Random(0).shuffle(found)
        return found

    assert work(tmp_path / "a.parquet") and work(tmp_path / "b.parquet", order=shuffled)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [r["path"] for r in table][:4] == ["0.jpg", "1.jpg", "2.jpg", "odd \\xff\n\"'.jpg"]
    assert table[7]["error"] == "why" and table[7]["score"] is None


def test_names_keep_their_bytes_in_csv(tmp_path):
    work(tmp_path / "a.csv", count=5)
    assert b'"odd \xff\n""\'.jpg"' in (tmp_path / "a.csv").read_bytes()


def test_a_batch_may_be_larger_than_a_part_and_change_between_runs(tmp_path):
    assert not work(tmp_path / "a.parquet", batch_size=11, stop=2)
    assert work(tmp_path / "a.parquet", batch_size=4)
    assert pq.read_metadata(tmp_path / "a.parquet").num_rows == 50


def test_a_part_that_a_power_cut_left_is_made_again(tmp_path):
    output = tmp_path / "a.parquet"
    work(output, stop=7)
    folder = tmp_path / "a.parquet.parts"
    (folder / "00000000.parquet").write_bytes(b"")
    (folder / "00000001.parquet").write_bytes((folder / "00000001.parquet").read_bytes()[:90])
    (folder / ".00000005.parquet.x.tmp").write_bytes(b"half")
    assert work(output) and work(tmp_path / "b.parquet")
    assert output.read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_killed_while_the_folder_is_removed(tmp_path, monkeypatch):
    """Whatever is removed last, the table stands and the next run only clears up."""
    work(tmp_path / "whole.parquet", batch_size=8)
    unlink, states = Path.unlink, []
    for allowed in (0, 3, 7, 9):  # 7 parts, the list, the lock, job.json
        output, left = tmp_path / f"{allowed}.parquet", [allowed]

        def dying(self, missing_ok=False, left=left):
            if not self.name.endswith(".tmp"):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
            unlink(self, missing_ok=missing_ok)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "unlink", dying)
            work(output, batch_size=8)
        job = output.with_name(f"{output.name}.parts") / "job.json"
        states.append(job.exists())
        if job.exists():
            assert work(output, batch_size=8) and not job.parent.exists()
        assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert any(states)


def test_another_job_is_refused(tmp_path):
    work(tmp_path / "a.parquet", stop=3)
    other = Job(["photos"], "/", "1/1", "toy", "def", "exact", "float32")
    with pytest.raises(OutputError, match="revision: 'abc' before, 'def' now"):
        work(tmp_path / "a.parquet", job=other)
    with pytest.raises(OutputError, match="parts of .* are missing"), Sink(tmp_path / "a.parquet") as sink:
        sink.start(JOB, [])
        sink.finish()


def test_the_list_is_frozen(tmp_path):
    """Images that come and go between two runs change nothing."""
    work(tmp_path / "a.parquet", count=30, stop=2)
    with Sink(tmp_path / "a.parquet") as sink:
        sink.start(JOB, items(3))
        assert sink.total == 30 and sum(len(part) for _, part in sink.missing()) == 30


@pytest.mark.skipif(sys.platform == "win32", reason="file locks here are POSIX's")
def test_two_processes_do_not_write_one_table(tmp_path):
    with Sink(tmp_path / "a.parquet") as first, Sink(tmp_path / "a.parquet") as second:
        first.start(JOB, items(3))
        with pytest.raises(OutputError, match="another process"):
            second.start(JOB, items(3))


# ---- kill -9 --------------------------------------------------------------------------------------

TOY = """
import sys, time
from pathlib import Path
from rali_zoo.scoring import sink
from rali_zoo.scoring.pipeline import slices
from rali_zoo.data.sources import Item
from rali_zoo.types import Score
sink.PART = 8
job = sink.Job(["photos"], "/", "1/1", "toy", "abc", "exact", "float32")
with sink.Sink(sys.argv[1]) as table:
    table.start(job, [Item(f"{i}.jpg") for i in range(400)], 4)
    for batch in slices(table.missing(), 4):
        time.sleep(0.002)
        table.add(batch.part, batch.start, [Score(len(i.path), path=i.path) for i in batch.items])
    table.finish()
"""


def kill_at_random(command, output, whole, kills, seed, limit=600.0):
    """Kill runs of a command until there were so many kills; each table that gets finished is compared.

    Moments are spread over the time that the undisturbed run took, so they fall into start-up, listing,
    scoring, writing and the end; a run that is done before its moment begins anew with an empty folder.
    """
    begun = time.monotonic()
    subprocess.run(command(whole), check=True, capture_output=True, timeout=limit)
    usual = time.monotonic() - begun
    rng, hits, tables = random.Random(seed), 0, 0
    while hits < kills:
        process = subprocess.Popen(command(output), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, said = process.communicate(timeout=usual * rng.uniform(0.1, 1.1))
            # Killed between the removal of the folder and its own end, a run leaves a table that is whole.
            assert process.returncode == 0 or b"is there already" in said, said
            assert output.read_bytes() == whole.read_bytes()
            output.unlink()
            tables += 1
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            hits += 1
    if output.with_name(f"{output.name}.parts").exists() or not output.exists():
        subprocess.run(command(output), check=True, capture_output=True, timeout=limit)
    assert output.read_bytes() == whole.read_bytes()
    return tables


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_kills_of_a_toy_run(tmp_path):
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    kill_at_random(lambda out: [sys.executable, "-c", TOY, str(out)], broken, whole, kills=3, seed=0)
    assert pq.read_table(broken)["path"].to_pylist() == [f"{i}.jpg" for i in range(400)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.parquet", "whole.parquet"]


@pytest.mark.slow
def test_twenty_kills_of_2000_images(tmp_path, many, model):
    folder = many(tmp_path / "photos", 2000)
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"

    def command(output):
        words = ["score", str(folder), "--model", model, "--output", str(output), "--batch_size", "16"]
        return [sys.executable, "-m", "rali_zoo", *words]

    kill_at_random(command, broken, whole, kills=20, seed=20)
    rows = pq.read_table(broken).to_pylist()
    assert sorted(r["path"] for r in rows) == sorted(str(p) for p in folder.iterdir())
    assert sum(r["error"] is not None for r in rows) == len(range(5, 2000, 97))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.parquet", "photos", "whole.parquet"]


# ---- others, damage, spreadsheets -------------------------------------------------------------------


def test_a_foreign_table_is_never_taken_for_ours(tmp_path):
    output = tmp_path / "out.csv"
    assert not work(output, stop=7)
    output.write_text("foreign")
    with pytest.raises(OutputError, match="written by something else"):
        work(output)
    assert output.read_text() == "foreign" and (tmp_path / "out.csv.parts" / "00000000.parquet").exists()
    output.unlink()
    assert work(output) and output.read_bytes().startswith(b"path,score")


def test_a_table_that_another_process_finished_meanwhile(tmp_path):
    with Sink(tmp_path / "a.parquet") as late:
        assert work(tmp_path / "a.parquet")
        with pytest.raises(OutputError, match="is there already"):
            late.start(JOB, items(50))


def test_damaged_parts_are_made_again_and_a_damaged_list_is_named(tmp_path):
    output, folder = tmp_path / "a.parquet", tmp_path / "a.parquet.parts"
    work(output, stop=9)
    whole = (folder / "00000000.parquet").read_bytes()
    for place in range(4, len(whole) - 8, 37):  # one byte of many, in pages, schema and footer
        changed = bytearray(whole)
        changed[place] ^= 0x10
        (folder / "00000000.parquet").write_bytes(changed)
        with Sink(output) as sink:
            sink.start(JOB, [])
            found = sink._read(0)
            assert found is None or found["score"].to_pylist() == [
                1 + len(i.path) / 7 if not i.error else None for i in items(9)
            ]
    assert work(output) and work(tmp_path / "b.parquet")
    assert output.read_bytes() == (tmp_path / "b.parquet").read_bytes()
    work(tmp_path / "c.parquet", stop=9)
    (tmp_path / "c.parquet.parts" / "images.jsonl").write_text("[]\n")
    with pytest.raises(OutputError, match=r"images\.jsonl is damaged"):
        work(tmp_path / "c.parquet")


def test_rows_by_score_json_lines_and_cells(tmp_path):
    import json

    names = ["=cmd()", "+1", "@a", "-b.jpg", "'q", ODD]
    for suffix in (".csv", ".jsonl", ".parquet"):
        with Sink(tmp_path / f"a{suffix}") as sink:
            sink.start(JOB, [Item(name) for name in names])
            sink.add(
                0,
                0,
                [Score(i / 2 if i else None, error=None if i else "=e", path=n) for i, n in enumerate(names)],
            )
            assert sink.finish("best") == 1
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == [2.5, 2.0, 1.5, 1.0, 0.5, None]
    assert pq.read_table(tmp_path / "a.parquet")["path"].to_pylist() == [line["path"] for line in lines]
    cells = (tmp_path / "a.csv").read_bytes()
    for cell in (b"'=cmd(),,,'=e", b"'+1,", b"'@a,", b"'-b.jpg,", b"''q,"):
        assert b"\n" + cell in cells
