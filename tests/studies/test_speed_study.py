"""The benchmark of speed itself: goals, results that survive a stop, pages that follow from results."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "benchmarks" / "studies"


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))


ABOUT = {
    "written": "2026-01-02T03:04:05+00:00",
    "hardware": {"processor": "a chip", "cpus": 2, "torch_threads": 1},
    "versions": {"torch": "2", "rali-zoo": "0"},
}


# ---- goals and timing ----


@pytest.mark.parametrize(
    ("unit", "goal", "value", "met"),
    [
        ("s", None, 1.0, None),
        ("× the speed", 2.0, 2.0, True),
        ("× the speed", 2.0, 1.99, False),
        ("of a score", 1e-5, 1e-6, True),
        ("× the time", 1.1, 1.2, False),
        ("SRCC", 0.8, 0.9, True),
    ],
)
def test_goals(unit, goal, value, met):
    from speed import Row

    row = Row("x", "y", unit, value, value, value, goal, limit="because")
    assert row.met is met
    assert row.reason == ("because" if met is False else "")
    assert Row("x", "y", "s", 3, 3, 3, 2).reason == "no physical reason is known"


def test_both_sides_are_timed_in_turn(monkeypatch):
    """Each is first in every other round; a speed is theirs over ours, a time ours over theirs."""
    import speed

    clock, order = [0.0], []
    monkeypatch.setitem(speed._CLOCKS, "wall", lambda: clock[0])

    def work(name, took):
        def run():
            order.append(name)
            clock[0] += took

        return run

    times = speed.ab(work("a", 3.0), work("b", 2.0), rounds=5, clock="wall")
    assert times == ([3.0] * 5, [2.0] * 5) and "".join(order) == "ab" + "ab" + "ba" + "ab" + "ba" + "ab"
    row = speed.compare("x", "y", *times, "× the speed", 1.5, limit=lambda s, f: f"{s}/{f}")
    assert row.value == row.low == row.high == 1.5 and row.met and row.limit == "3.0/2.0"
    assert row.values == {"baseline_s": 3.0, "candidate_s": 2.0}
    assert speed.compare("x", "y", *times, "× the time", 0.7).met
    with pytest.raises(ValueError, match="fewer than 3 rounds"):
        speed.ab(lambda: 0, lambda: 0, rounds=2)


# ---- results ----


def test_sections_are_kept_one_by_one(tmp_path, monkeypatch, capsys):
    """One that fails does not take the others with it, and only it is tried again."""
    import speed
    from speed import Row

    runs = []

    def good(quick):
        runs.append("good")
        return [Row("a", "b", "× the speed", 2.0, 1.5, 2.5, 1.0, "note", "limit", {"bytes": 3})]

    def bad(quick):
        runs.append("bad")
        if len(runs) < 3:
            raise RuntimeError("no luck\nat all")
        return []

    sections = {"bad": bad, "good": good}
    path = tmp_path / "speed.json"
    assert speed.measure(sections, ["bad", "good"], path, ABOUT, False, again=False) == 1
    content = json.loads(path.read_text())
    assert content["sections"]["bad"]["error"] == "RuntimeError: no luck"
    (row,) = content["sections"]["good"]["rows"]
    assert row["met"] is True and row["reason"] == "" and row["goal"] == 1 and row["values"] == {"bytes": 3}
    assert speed.measure(sections, ["bad", "good"], path, ABOUT, False, again=False) == 0
    assert runs == ["bad", "good", "bad"]
    assert json.loads(path.read_text())["sections"]["bad"]["error"] == ""
    assert "there from an earlier run" in capsys.readouterr().err
    speed.measure(sections, [], path, ABOUT, True, again=False)
    speed.measure(sections, ["good"], path, ABOUT, True, again=False)
    assert set(json.loads(path.read_text())["sections"]) == {"good"}  # small sizes do not mix with the others


def test_the_table_says_what_was_not_met():
    from tables import speed

    row = {
        "name": "x", "against": "y", "unit": "× the speed", "value": 0.9, "low": 0.8, "high": 1.1, "goal": 1.0,
        "note": "n", "met": False,
    }  # fmt: skip
    good = {
        **row,
        "name": "z",
        "against": "",
        "unit": "s",
        "goal": None,
        "met": None,
        "reason": "",
        "value": 5e-6,
    }
    about = {"script": "speed.py", "written": ABOUT["written"]}
    done = {**about, "load_average": [0.5, 0, 0], "error": "", "rows": [{**row, "reason": "the chip"}, good]}
    failed = {**about, "load_average": [1.5, 0, 0], "error": "RuntimeError: no luck", "rows": []}
    text = speed({**ABOUT, "quick": False, "sections": {"one": done, "two": failed}})
    assert "| x | y | ≥ 1 | 0.9 × the speed | 0.8 – 1.1 | not met | `speed.py --only one` |" in text
    assert "- x, against y: n. **Not met:** the chip." in text
    assert "| z | – | – | 5.0e-06 s |" in text and "two: not measured: RuntimeError: no luck" in text
    assert "load of the machine 0.5 to 1.5; 2026-01-02" in text
    assert "Nothing has been measured yet" in speed({})


# ---- scale ----


def test_the_formulae_of_the_page():
    """Worked by hand: 3.6 million images at 100 a second are ten GPU hours."""
    from scale_out import Images, Prices, plan

    p = plan(Images(3.6e6, 0.025, 2e5, 40), 100, deadline_hours=4)
    assert p.gpu_hours == pytest.approx(10) and p.gpus == 3 and p.cores_a_gpu == 3
    assert p.core_hours == pytest.approx(25) and p.read_mb_s == pytest.approx(20)
    assert p.stored_tb == pytest.approx(0.72) and p.written_gb == pytest.approx(0.144)
    prices = Prices(gpu_hour=2.0, core_hour=0.1, gigabyte_month=0.02, gigabyte_out=0.05)
    assert p.dollars(prices) == pytest.approx({"compute": 22.5, "month": 14.4, "moved": 36})


def test_operations_are_those_that_torch_counts():
    """And those of timm's table: 191.11 thousand million multiplications, without a projection."""
    import torch
    from scale_out import vit_flops
    from speed_gpu import operations
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, image_size=56,
        patch_size=14, projection_dim=32, attn_implementation="eager",
    )  # fmt: skip
    counted = operations(CLIPVisionModelWithProjection(config).eval(), torch.rand(1, 3, 56, 56))
    assert vit_flops(56, 14, 64, 3, 32) == pytest.approx(counted, rel=1e-6)
    assert vit_flops(336, 14, 1024, 24, 0) / 2e9 == pytest.approx(191.11, rel=1e-3)


@pytest.mark.slow
def test_the_study_of_a_gpu_runs_without_one(tmp_path):
    target = tmp_path / "gpu.json"
    words = [sys.executable, str(STUDIES / "speed_gpu.py"), "--quick", f"--output={target}"]
    subprocess.run(words, check=True, timeout=900)
    sections = json.loads(target.read_text())["sections"]
    assert set(sections) == {"encoder", "folder", "grpo"}
    for section in sections.values():
        assert section["error"] == "" and section["rows"]
        assert all(row["low"] <= row["value"] <= row["high"] for row in section["rows"])


def test_the_page_follows_from_the_results():
    from scale_out import DECODE, LAION, block

    def row(name, **values):
        return {"name": name, "values": values}

    rows = [
        row(DECODE, candidate_s=0.008, bytes=250_000),
        row("memory of `score` on 2 images", bytes_a_row=30),
    ]
    content = {**ABOUT, "quick": False, "sections": {"s": {"rows": rows}}}
    text = block(content)
    hours = LAION / 351.4 / 3600
    assert (
        f"| 5,850,000,000 | RTX 4090 | {hours:,.0f} | {-(-hours // 24):,.0f} | 3 | 13,000 | 87.8 | 1,462 | 176 |"
        in text
    )
    assert "8.0 ms" in text and "250 KB" in text and "30 bytes" in text
    assert "Nothing has been measured yet" in block(
        {**content, "quick": True}
    )  # small sizes are no measurement
    assert "Nothing has been measured yet" in block({})


def test_a_gpu_that_was_measured_has_rows_of_its_own():
    from scale_out import GPUS, gpus

    def content(**parts):
        rows = [{"name": name, "values": {"images_a_second": rate}} for name, rate in parts.items()]
        return {
            "quick": False,
            "hardware": {"cpus": 16, "gpus": ["NVIDIA X1"]},
            "sections": {"s": {"rows": rows}},
        }

    both = content(**{"RALI: bfloat16, compiled": 1000.0, "score, ViT-L/14-336, fast": 600.0})
    assert [(g.name, g.rate) for g in gpus(both)[len(GPUS) :]] == [
        ("X1, network alone", 1000.0),
        ("X1, `score --decode fast`", 600.0),
    ]
    assert (
        len(gpus(content(**{"RALI: bfloat16, compiled": 1000.0}))) == len(GPUS) + 1
    )  # the other was not measured
    for nothing in ({}, {**both, "quick": True}, {**both, "hardware": {"cpus": 2, "gpus": []}}):
        assert gpus(nothing) == GPUS


def test_a_row_has_what_its_numbers_need(tmp_path):
    """Two doubles that cannot be compressed, and a path that can, to little."""
    from speed import bytes_a_row

    assert 16 < bytes_a_row(20_000, tmp_path) < 16 + len("shards/000000.tar/000000000.jpg")


def test_a_user_sets_rates_and_prices():
    words = [
        "--images",
        "3.6e6",
        "--rate",
        "100",
        "--gpu-hour",
        "2",
        "--core-hour",
        "0.1",
        "--decode-ms",
        "25",
    ]
    script = [sys.executable, str(STUDIES / "scale_out.py"), *words, "--kilobytes", "200"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert "gpu_hours    10.0" in done.stdout and "compute      22.5" in done.stdout


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.py")), ids=lambda path: path.name)
def test_what_a_study_imports_is_there(path):
    """Also where a function imports it: most studies run for hours, and no test runs them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rali_zoo"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
