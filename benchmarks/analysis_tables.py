"""Tables of ``benchmarks/results/analysis/*.json`` for docs/analysis.md; see benchmarks/tables.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blocks import table

RESULTS = Path(__file__).resolve().parent / "results" / "analysis"


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def _cell(v: Mapping[str, Any], digits: int = 3, sign: str = "") -> str:
    if v["value"] is None:
        return "–"
    if v["low"] is None:
        return f"{v['value']:{sign}.{digits}f}"
    value, low, high = (f"{v[k]:{sign}.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _foot(content: Mapping[str, Any]) -> str:
    s, data = content["settings"], content["data"]
    sets = ", ".join(
        f"`{ref}` {row['chosen']} of {row['of']}" + (" (**synthetic labels**)" if row["synthetic"] else "")
        for ref, row in data.items()
    )
    models = ", ".join(f"`{ref}`" for ref in content["models"])
    return (
        f"{models}; images: {sets}; split {s['split']}, seed {s['seed']}, {s['resamples']} resamples, "
        f"{content['cpu_seconds']:.0f} s of processor time. {content['hardware']['processor']}; "
        f"torch {content['torch']}, transformers {content['packages']['transformers']}; "
        f"{content['written'][:10]}."
    )


def _scores(name: str) -> str:
    """SRCC of each way of scoring, then the paired differences."""
    content = _read(name)
    results = content["results"]
    refs = list(results)
    ways = list(results[refs[0]]["scores"])
    rows = []
    for way in ways:
        found = [results[ref]["scores"][way] for ref in refs]
        rows.append([way, *(_cell(s["srcc"]) for s in found), str(sum(s["failed"] for s in found))])
    lines = table(["scored from", *(f"`{ref}`: SRCC" for ref in refs), "without a score"], rows)
    rows = [
        [pair, *(_difference(results[ref]["differences"][pair]) for ref in refs)]
        for pair in results[refs[0]]["differences"]
    ]
    lines += ["", *table(["difference, paired", *(f"`{ref}`" for ref in refs)], rows)]
    return "\n".join([*lines, "", _foot(content)])


def _difference(row: Mapping[str, Any]) -> str:
    srcc = row["srcc"]
    return "–" if srcc["value"] is None else f"{_cell(srcc, sign='+')}, p = {srcc['p']:.3f}"


def texts() -> str:
    """Scoring from the text against scoring from the image."""
    return _scores("text-vs-image")


def conflict() -> str:
    """Whose MOS a verdict follows when text and image are of different photographs."""
    results = _read("text-vs-image")["results"]
    rows = [
        [f"`{ref}`", *(_cell(r["conflict"][k]) for k in ("text", "image", "chance"))]
        for ref, r in results.items()
    ]
    heading = [
        "text of one image, pixels of another",
        "SRCC with the MOS of the text's",
        "of the pixels'",
        "the two MOS, as paired by chance",
    ]
    return "\n".join(table(heading, rows))


def no_reasoning() -> str:
    """Answers without reasoning against those with it."""
    return _scores("no-reasoning")


def swap() -> str:
    """Texts read by a read-out of another data set."""
    content = _read("swap")
    rows = []
    for ref, writers in content["results"].items():
        for writer, row in writers.items():
            for way, s in row["scores"].items():
                swapped = [_difference(d) for p, d in row["differences"].items() if p.startswith(f"{way} - ")]
                rows.append([f"`{ref}`", f"`{writer}`", way, _cell(s["srcc"]), *(swapped or ["–"])])
    heading = ["texts about", "written by", "scored", "SRCC", "minus the own reader"]
    return "\n".join([*table(heading, rows), "", _foot(content)])


def attention() -> str:
    """Share of attention by layer, at the score token; even; while the reasoning is written."""
    content = _read("attention")
    rows = []
    for ref, row in content["results"].items():
        places = [
            (f"score, layer {k}" if k != "all" else "score, all layers", v) for k, v in row["score"].items()
        ]
        places += [("if spread evenly", row["even"]), ("while writing the text", row["text"]["all"])]
        rows += [[f"`{ref}`", place, *(_cell(s[part]) for part in s)] for place, s in places]
    heading = ["images of", "attention at", "to the image", "question", "text", "answer so far"]
    return "\n".join([*table(heading, rows), "", _foot(content)])


def compression() -> str:
    """Visual tokens against text tokens."""
    content = _read("compression")
    rows = [
        [f"`{ref}`", str(row["n"]), *(_cell(row[k], 2) for k in ("visual", "text", "ratio"))]
        for ref, row in content["results"].items()
    ]
    heading = ["images of", "n", "visual tokens", "text tokens", "visual / text"]
    return "\n".join([*table(heading, rows), "", _foot(content)])


def domains() -> str:
    """Gap between data sets by space."""
    content = _read("domains")
    rows = []
    for space, row in content["results"].items():
        told = row["classifier"]
        rows.append([space, f"all (chance {told['chance']:.2f})", _cell(told), "", "", ""])
        for pair in row["pairs"]:
            names = f"`{pair['a']}`, `{pair['b']}`"
            numbers = [_cell(pair["classifier"]), _cell(pair["mmd2"], 4), f"{pair['mmd2']['p']:.3f}"]
            rows.append([space, names, *numbers, _cell(pair["cka"])])
    heading = ["space", "data sets", "classifier", "MMD²", "p", "CKA of covariances"]
    return "\n".join([*table(heading, rows), "", _foot(content)])


def ablations() -> str:
    """What each part of RALI is worth; the file is that of ``rali-zoo analyze ablations``."""
    content = _read("ablations")
    results = content["results"]
    refs = list(results["tests"])
    rows = []
    for name, row in results["mean"].items():
        minus = row.get("minus")
        told = ["–", "–"] if minus is None else [_cell(minus, sign="+"), f"{minus['p_holm']:.3f}"]
        each = [_cell(results["tests"][ref]["variants"][name]["srcc"]) for ref in refs]
        rows.append([name, _cell(row["srcc"]), *told, *each])
    heading = ["config", "SRCC, mean", "minus the complete one", "p (Holm)", *(f"`{ref}`" for ref in refs)]
    seeds, n = results["seeds"], ", ".join(str(results["tests"][ref]["n"]) for ref in refs)
    foot = (
        f"{len(seeds)} seeds; intervals over seeds and contents; {n} test images (**synthetic labels**). "
        f"{content['hardware']['processor']}; torch {content['torch']}; {content['written'][:10]}."
    )
    return "\n".join([*table(heading, rows), "", foot])


#: Name of the markers to what stands between them.
TABLES: dict[str, Callable[[], str]] = {
    "analysis_texts": texts,
    "analysis_conflict": conflict,
    "analysis_no_reasoning": no_reasoning,
    "analysis_attention": attention,
    "analysis_compression": compression,
    "analysis_swap": swap,
    "analysis_domains": domains,
}
if (RESULTS / "ablations.json").is_file():  # 18 runs, which not every revision of the results has
    TABLES["analysis_ablations"] = ablations
