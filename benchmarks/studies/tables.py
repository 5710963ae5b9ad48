"""Write the tables of README and docs from the committed results; ``--check`` fails when they are stale.

A table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``, in any page, several if wanted.

    python benchmarks/studies/tables.py [--check]
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import scale_out

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
BOARD = ROOT / "benchmarks" / "leaderboard.csv"
Content = Mapping[str, Any]


# ---- what the tables share ----


def read(name: str) -> dict[str, Any]:
    """A results file, by its path below ``benchmarks/results`` without the suffix; empty if there is none."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], *foot: str) -> str:
    """A markdown table with lines below it."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines = [f"| {' | '.join(heading)} |", "|" + "---|" * len(heading), *lines]
    return "\n".join([*lines, *(("", *foot) if foot else ())])


def provenance(content: Content) -> str:
    """Machine, versions and day of a results file."""
    h, v = content["hardware"], content["versions"]
    machine = f"{h['processor']}, {h['cpus']} cores, {h['torch_threads']} torch threads"
    machine += "".join(f", {gpu}" for gpu in h.get("gpus", ()))
    return f"{machine}; torch {v['torch']}, rali-zoo {v['rali-zoo']}; {content['written'][:10]}"


def brackets(
    row: Content, value: str = "value", low: str = "low", high: str = "high", form: str = ".3f"
) -> str:
    """``value [low, high]``; a dash where it is not defined, no bracket without an interval."""
    if row[value] is None:
        return "–"
    if row[low] is None:
        return format(row[value], form)
    return f"{row[value]:{form}} [{row[low]:{form}}, {row[high]:{form}}]"


def to(row: Content, value: str, low: str, high: str, form: str = ".3f") -> str:
    """``value (low to high)``."""
    return f"{row[value]:{form}} ({row[low]:{form}} to {row[high]:{form}})"


def triple(row: Content, *keys: str) -> list[str]:
    """Numbers with three digits."""
    return [f"{row[key]:.3f}" for key in keys]


# ---- README: quick start, photographs, reasoner, leaderboard ----


def quickstart() -> str:
    """What the quick start, and the same network as plain regression, gave on their test sets."""
    content, other = read("quickstart_rali"), read("quickstart_regression")["datasets"]
    rows = []
    for i, (name, row) in enumerate(content["datasets"].items()):
        place = "in-domain" if i == 0 else "cross-domain"
        numbers = [x for r in (row, other[name]) for x in triple(r, "srcc", "plcc", "rmse")]
        label = f"`{name}` ({place}, **synthetic labels**)"
        rows.append([label, str(row["n"]), str(row["failed"]), *numbers])
    heading = ["test set", "n", "failed", "SRCC", "PLCC", "RMSE", "regression: SRCC", "PLCC", "RMSE"]
    minutes = content["fit_seconds"] / 60
    foot = f"One run each, seed {content['seed']}; RALI took {minutes:.1f} minutes, data included. "
    return table(heading, rows, foot + provenance(content) + ".")


def biq2021() -> str:
    """RALI, regression and classical regressors on real photographs."""
    content = read("biq2021_mobilenetv2")
    measured, seeds = content["measured"], content["seeds"]

    def span(row: Content) -> str:
        return f"{row['srcc_low']:.3f}–{row['srcc_high']:.3f}"

    rows = []
    for name in ("RALI", "Regression"):
        mean = measured[f"{name}, mean of seeds"]
        spans = "; ".join(span(measured[f"{name}, seed {s}"]) for s in seeds)
        srcc = f"{mean['srcc']:.3f} ± {mean['srcc_sd']:.3f}"
        rows.append([f"{name}, mean of {len(seeds)} seeds", srcc, f"{mean['plcc']:.3f}", spans])
    rows += [[n, *triple(r, "srcc", "plcc"), span(r)] for n, r in measured.items() if "seed" not in n]
    source = "reported by the data set's authors, whole test split"
    reported = content["reported_by_authors_on_their_whole_test_split"]
    rows += [[f"{name} ({source})", f"{value:.3f}", "–", "–"] for name, value in reported.items()]
    pairs = [content["paired"][f"RALI - Regression, seed {s}"] for s in seeds]
    each = [f"{brackets(p, 'srcc_difference', form='+.3f')}, p = {p['p']:.2f}" for p in pairs]
    test = content["rows"]["test"] if "rows" in content else {"n": measured[f"RALI, seed {seeds[0]}"]["n"]}
    which = f"names and MOS {test['sha256'][:12]}" if "sha256" in test else "which ones was not recorded"
    foot = (
        f"RALI minus regression, paired bootstrap, by seed: {'; '.join(each)}. {test['n']} test images "
        f"({which}). {provenance(content)}."
    )
    return table(["model", "SRCC", "PLCC", "95 % interval of SRCC"], rows, foot)


def photo() -> str:
    """The models for photographs: correlations with human scores and the response to degradations."""
    content = read("photo")
    rows = []
    for name, mean in content["mean_of_seeds"].items():
        seeds = [m for key, m in content["measured"].items() if key.startswith(f"{name}, seed ")]
        cells = [f"{name} ({len(seeds)} seed{'s' * (len(seeds) > 1)})"]
        for key in ("biq2021 test", "pcuid"):
            sd = f" ± {mean[key]['sd']:.3f}" if mean[key]["sd"] is not None else ""
            ends = "; ".join(f"{s[key]['srcc_low']:.2f}–{s[key]['srcc_high']:.2f}" for s in seeds)
            cells.append(f"{mean[key]['srcc']:.3f}{sd} ({ends})")
        for key in ("all", "blur", "noise", "jpeg", "jpeg2000", "pristine_first"):
            cells.append(f"{sum(s['response'][key]['share'] for s in seeds) / len(seeds):.3f}")
        rows.append(cells)
    first = content["measured"][f"{next(iter(content['mean_of_seeds']))}, seed {content['seeds'][0]}"]
    n = {key: first[key]["n"] for key in ("biq2021 test", "pcuid")}
    heading = [
        "model",
        f"SRCC, BIQ2021 test, n = {n['biq2021 test']} (in-domain)",
        f"SRCC, PCUID, n = {n['pcuid']} (never trained on)",
        f"levels in order, all types, n = {first['response']['all']['n']}",
        "blur",
        "noise",
        "JPEG",
        "JPEG 2000",
        f"untouched above both strong levels, n = {first['response']['pristine_first']['n']}",
    ]
    foot = "Mean ± std over seeds; in brackets each seed's 95 % interval."
    return table(heading, rows, f"{foot} {provenance(content)}.")


#: What README shows of the rows on photographs.
FEW = ("photo", "classic:laplacian", "classic:tenengrad", "classic:brisque", "classic:niqe", "pyiqa:piqe")


def photo_others(few: bool = False) -> str:
    """What other people's metrics and checks give on photographs, from the leaderboard."""
    columns = {"biq2021": "srcc", "pcuid": "srcc", "degraded:library?protocol=whole&size=384": "ordered"}
    found: dict[str, dict[str, dict[str, str]]] = {}
    with BOARD.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["dataset"] in columns and row["status"] == "ok":
                found.setdefault(row["model"], {})[row["dataset"]] = row
    rows = []
    for name, cells in found.items():
        if name.endswith("-synthetic") or len(cells) < len(columns) or (few and name not in FEW):
            continue
        failed = sum(int(row["failed"]) for row in cells.values())
        rows.append([name, *(brackets(_numbers(cells[d], k), k) for d, k in columns.items()), str(failed)])
    rows.sort(key=lambda row: -float(row[1].split()[0]))
    n = [next(iter(found.values()))[dataset]["n_dataset"] for dataset in columns]
    heading = ["model", f"SRCC, BIQ2021 test, n = {n[0]}", f"SRCC, PCUID, n = {n[1]}",
               f"levels in order, {n[2]} images", "images without a score"]  # fmt: skip
    return table(heading, rows)


def _numbers(row: dict[str, str], key: str) -> dict[str, float]:
    return {key: float(row[key]), "low": float(row[f"{key}_low"]), "high": float(row[f"{key}_high"])}


def photo_pairs() -> str:
    """Paired differences of the models for photographs."""
    rows = [
        [name, f"{r['srcc_difference']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]", f"{r['p']:.2g}"]
        for name, r in read("photo")["paired"].items()
    ]
    return table(["SRCC difference, test set, seed", "difference, 95 % interval", "p"], rows)


def photo_weakest() -> str:
    """The distortions whose levels the shipped model orders worst."""
    content = read("photo")
    kinds = content["measured"][f"photo, seed {content['chosen_by_validation_srcc']['photo']}"]["response"][
        "by_distortion"
    ]
    weak = sorted(kinds, key=lambda kind: kinds[kind]["share"])[:6]
    shown = ", ".join(f"{k.replace('_', ' ')} {kinds[k]['share']:.2f}" for k in weak)
    return f"Ordered worst (n = {kinds[weak[0]]['n']} pairs each): {shown}."


def photo_ratings() -> str:
    """Learning curve on one's own ratings."""
    content = read("photo_ratings")
    rows = []
    for row in content["rows"]:
        pairs = row.get("minus_imagenet", [])
        minus = "; ".join(f"{p['difference']:+.3f} [{p['low']:+.3f}, {p['high']:+.3f}]" for p in pairs)
        rows.append(
            [
                str(row["ratings"]),
                row["start"],
                f"{row['srcc']:.3f} [{row['low']:.2f}, {row['high']:.2f}]",
                minus,
            ]
        )
    heading = ["own ratings", "start", f"SRCC, n = {content['n_test']}", "minus ImageNet, by seed"]
    return table(heading, rows, f"{provenance(content)}.")


def reasoner() -> str:
    """The shipped tiny reasoner, and what the chain of the quick start gives; answers read greedily."""
    runs = [read(n) for n in ("release_tiny_reasoner", "reasoner_cold_start_tiny", "reasoner_grpo_tiny")]
    rows = []
    for name, row in runs[0]["datasets"].items():
        parts = [run["datasets"][name] for run in runs]
        numbers = [x for r in parts for x in triple(r, "srcc", "plcc")]
        failed = str(sum(r["failed"] for r in parts))
        rows.append([f"`{name}` (**synthetic labels**)", str(row["n"]), *numbers, failed])
    heading = [
        "test set", "n", "shipped: SRCC", "PLCC", "quick start, cold start: SRCC", "PLCC", "after GRPO: SRCC",
        "PLCC", "unparseable answers of all",
    ]  # fmt: skip
    minutes = [f"{run['fit_seconds'] / 60:.1f}" for run in runs]
    foot = (
        f"One run each, seed {runs[0]['seed']}; minutes: {minutes[0]} on a vision encoder trained before, "
        f"{minutes[1]}, {minutes[2]}. {provenance(runs[0])}."
    )
    return table(heading, rows, foot)


def rl_study() -> str:
    """What reinforcement adds to a cold start on noisy labels, against supervised controls."""
    content = read("rl_study")
    seeds, mean = content["by_seed"].values(), content["mean"]
    lab, real = "synthetic:lab", "biq2021"

    def about(row: Content) -> str:
        return f"{row['srcc']['mean']:.3f} ± {row['srcc']['sd']:.3f}"

    rows = []
    for arm, row in mean[lab].items():
        found = [s["measured"][lab][arm] for s in seeds]
        spans = "; ".join(f"{r['srcc_low']:.2f}–{r['srcc_high']:.2f}" for r in found)
        shares = [f"{row[k]['mean']:.0%}" for k in ("distortion_type_accuracy", "distinct_texts_share")]
        rows.append([arm, about(row), spans, *shares, about(mean[real][arm])])
    each = []
    for pair in next(iter(seeds))["paired"][lab]:
        found = [s["paired"][lab][pair] for s in seeds]
        each.append(f"{pair}: " + ", ".join(f"{p['difference']:+.3f} (p = {p['p']:.2g})" for p in found))
    heading = [
        "model", "`synthetic:lab`: SRCC", "95 % intervals, by seed", "type named rightly", "distinct texts",
        "`biq2021`: SRCC",
    ]  # fmt: skip
    foot = f"Paired bootstrap on `{lab}`, by seed. {'; '.join(each)}. {provenance(content)}."
    return table(heading, rows, foot)


#: Rows of the leaderboard for the README: the models of the package, and metrics that papers compare with.
COMPARED = (
    "reasoner-tiny-synthetic", "regression-tiny-synthetic", "rali-tiny-synthetic", "piq:haarpsi", "piq:vsi",
    "piq:fsim", "piq:gmsd", "piq:ssim", "piq:psnr", "pyiqa:piqe",
)  # fmt: skip


def comparison() -> str:
    """Our models and well-known metrics: SRCC with its interval, parameters, time."""
    with BOARD.open(newline="") as file:
        found = {row["model"]: row for row in csv.DictReader(file) if row["dataset"] == "synthetic:lab"}
    rows = []
    for name in sorted(COMPARED, key=lambda n: int(found[n]["place"])):
        row = found[name]
        own = "†" if row["leakage"] == "same-dataset" else ""
        srcc, low, high = (float(row[k]) for k in ("srcc", "srcc_low", "srcc_high"))
        rows.append([
            row["place"], name, "needed" if row["kind"] == "FR" else "none",
            f"{srcc:.3f}{own} [{low:.3f}, {high:.3f}]", f"{int(row['parameters'] or 0):,}",
            f"{float(row['latency_ratio']):.2f}" if row["latency_ratio"] else "–",
        ])  # fmt: skip
    heading = [
        "place", "model", "reference image", "SRCC, `synthetic:lab` (**synthetic labels**)", "parameters",
        "time, in parts of RALI's",
    ]  # fmt: skip
    return table(heading, rows)


# ---- speed ----


def number(value: float) -> str:
    """Three digits that count."""
    if 0 < abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def speed(content: Content | None = None) -> str:
    """What a person waits for: measured values, smallest and largest round, goals; safe for no results.

    Args:
        content: of a results file of ``speed.py``; that of the repository by default.
    """
    content = read("speed") if content is None else content
    sections = content.get("sections", {})
    if not any(s["rows"] or s["error"] for s in sections.values()):
        return "Nothing has been measured yet: run `python benchmarks/studies/speed.py`."
    rows, notes = [], []
    for name, section in sections.items():
        command = f"`{section['script']} --only {name}`"
        if section["error"]:
            notes.append(f"- {name}: not measured: {section['error']}")
        for row in section["rows"]:
            met = {True: "met", False: "not met", None: "–"}[row["met"]]
            sign = "≥" if row["unit"] in ("× the speed", "SRCC") else "≤"
            goal = "–" if row["goal"] is None else f"{sign} {number(row['goal'])}"
            ends = f"{number(row['low'])} – {number(row['high'])}"
            value = f"{number(row['value'])} {row['unit']}".rstrip()
            rows.append([row["name"], row["against"] or "–", goal, value, ends, met, command])
            why = f" **Not met:** {row['reason']}." if row["reason"] else ""
            notes.append(
                f"- {row['name']}{', against ' * bool(row['against'])}{row['against']}: {row['note']}.{why}"
            )
    small = "Small sizes (`--quick`): no result, only a sign that it runs. " if content["quick"] else ""
    loads = [section["load_average"][0] for section in sections.values() if section["load_average"]]
    days = sorted({section["written"][:10] for section in sections.values()})
    machine = provenance(content).rpartition("; ")[0]
    foot = (
        f"{small}{machine}; load of the machine {min(loads):.1f} to {max(loads):.1f}; {' and '.join(days)}."
    )
    heading = ["what", "against", "goal", "measured", "smallest and largest round", "outcome", "command"]
    return table(heading, rows, *notes, "", foot)


# ---- the paper on human scores ----

KINDS = {"in-domain": "in-domain", "left out": "domain left out"}
_PAPER = "paper_on_photographs"


def paper_study() -> str:
    """SRCC of every way to train on domains that disagree, with intervals."""
    content = read(_PAPER)
    rows = [
        [
            name,
            *(brackets(row[k], "srcc") for k in KINDS),
            ", ".join(f"{v:.3f}" for v in row["left out"]["seeds"]),
        ]
        for name, row in content["measured"].items()
    ]
    n = ", ".join(f"{name} {count}" for name, count in content["n"].items())
    foot = (
        f"SRCC, mean over folds and {len(content['seeds'])} seeds, 95 % intervals over seeds and images; test images: "
        f"{n} (**synthetic labels**: {', '.join(content['synthetic_labels'])}); "
        f"{sum(content['minutes'].values()) / 60:.1f} hours by the clock for all stages. {provenance(content)}."
    )
    return table(["model", *KINDS.values(), "by seed, left out"], rows, foot)


def paper_domains() -> str:
    """SRCC on each domain of what was trained on it and on what leaves it out."""
    content = read(_PAPER)
    rows = [
        [
            name,
            *(
                f"{row['in-domain']['tests'][d]:.3f} / {row['left out']['tests'][d]:.3f}"
                for d in content["n"]
            ),
        ]
        for name, row in content["measured"].items()
    ]
    return table(["in-domain / left out", *content["n"]], rows)


def paper_pairs() -> str:
    """Paired differences of the rows of :func:`paper_study`."""
    rows = [
        [name, *(f"{brackets(row[k], 'srcc_difference', form='+.3f')}, p = {row[k]['p']:.3f}" for k in KINDS)]
        for name, row in read(_PAPER)["paired"].items()
    ]
    return table(["difference of SRCC", *KINDS.values()], rows)


def paper_scales() -> str:
    """How the scales of the domains disagree."""
    content = read(_PAPER)
    rows = [[name, f"{row['mean']:.2f}", f"{row['std']:.2f}"] for name, row in content["scales"].items()]
    pooled = [
        [method, *triple(row, "mean", "pooled")] for method, row in content["gaps"]["pooled_srcc"].items()
    ]
    below = table(["trained by", "mean of SRCC by set", "SRCC of all sets pooled on one scale"], pooled)
    return table(["domain", "mean MOS (1 to 5)", "std"], rows, below)


def paper_texts() -> str:
    """What the reasoners write: diversity, what the text alone says, answers that cannot be read."""
    content = read(_PAPER)
    rows = [
        [
            name,
            f"{row['distinct_texts']['value']:.1%}",
            f"{row['text_only_srcc']['value']:.3f} ({', '.join(f'{v:.3f}' for v in row['text_only_srcc']['seeds'])})",
            f"{row['failed']['value']:.1%}",
            f"{content['unparseable_answers'][name]:,}",
        ]
        for name, row in content["texts"].items()
    ]
    heading = [
        "model",
        "distinct texts",
        "SRCC of the text alone (by seed)",
        "unparseable",
        "of all tests, images",
    ]
    return table(heading, rows)


def paper_attention() -> str:
    """Where the reasoners look when they write the score."""
    found = read(_PAPER)["attention"]
    titles = {"score": "at the score", "even": "if it were even"}
    rows = [[titles[k], *(f"{row[p]['value']:.3f}" for p in row)] for k, row in found.items()]
    return table(["share of attention", *found["score"]], rows)


def paper_gaps() -> str:
    """Distances between the domains, space by space, before and after RACT."""
    spaces = [
        [name, f"{r['cka']:.3f}", f"{r['mmd2']:.4f}", f"{r['classifier']:.1%}",
         f"{r['everyone']:.1%} ({r['chance']:.1%})"]
        for name, r in read(_PAPER)["gaps"]["spaces"].items()
    ]  # fmt: skip
    heading = ["space", "covariance CKA", "MMD²", "classifier of two domains", "of all five (chance)"]
    return table(heading, spaces)


def paper_claims() -> str:
    """The paper's claims beside what was measured."""
    rows = [
        [r["claim"], r["measured"], f"{r['value']:.3f}", f"{r['low']:.3f} to {r['high']:.3f}", f"**{r['outcome']}**"]
        for r in read(_PAPER)["claims"]
    ]  # fmt: skip
    return table(["claim", "measured", "value", "95 % interval", "outcome"], rows)


# ---- analyses ----


def _foot(content: Content) -> str:
    s = content["settings"]
    sets = ", ".join(
        f"`{ref}` {row['chosen']} of {row['of']}" + (" (**synthetic labels**)" if row["synthetic"] else "")
        for ref, row in content["data"].items()
    )
    return (
        f"{', '.join(f'`{ref}`' for ref in content['models'])}; images: {sets}; split {s['split']}, seed "
        f"{s['seed']}, {s['resamples']} resamples, {content['cpu_seconds']:.0f} s of processor time. "
        f"{_machine(content, ('torch', 'transformers'))}."
    )


def _machine(content: Content, packages: Sequence[str]) -> str:
    known = content.get("versions") or {"torch": content["torch"], **content["packages"]}
    versions = ", ".join(f"{name} {known[name]}" for name in packages)
    return f"{content['hardware']['processor']}; {versions}; {content['written'][:10]}"


def _difference(row: Content) -> str:
    srcc = row["srcc"]
    return "–" if srcc["value"] is None else f"{brackets(srcc, form='+.3f')}, p = {srcc['p']:.3f}"


def _scores(name: str) -> str:
    """SRCC of each way of scoring, then the paired differences."""
    content = read(f"analysis/{name}")
    results = content["results"]
    refs = list(results)
    rows = []
    for way in results[refs[0]]["scores"]:
        found = [results[ref]["scores"][way] for ref in refs]
        rows.append([way, *(brackets(s["srcc"]) for s in found), str(sum(s["failed"] for s in found))])
    above = table(["scored from", *(f"`{ref}`: SRCC" for ref in refs), "without a score"], rows, "")
    rows = [
        [pair, *(_difference(results[ref]["differences"][pair]) for ref in refs)]
        for pair in results[refs[0]]["differences"]
    ]
    return above + table(["difference, paired", *(f"`{ref}`" for ref in refs)], rows, _foot(content))


def conflict() -> str:
    """Whose MOS an answer follows when text and image are of different photographs."""
    rows = [
        [f"`{ref}`", *(brackets(r["conflict"][k]) for k in ("text", "image", "chance"))]
        for ref, r in read("analysis/text-vs-image")["results"].items()
    ]
    heading = [
        "text of one image, pixels of another", "SRCC with the MOS of the text's", "of the pixels'",
        "the two MOS, as paired by chance",
    ]  # fmt: skip
    return table(heading, rows)


def swap() -> str:
    """Texts read by a linear probe of another data set."""
    content = read("analysis/swap")
    rows = []
    for ref, writers in content["results"].items():
        for writer, row in writers.items():
            for way, s in row["scores"].items():
                swapped = [_difference(d) for p, d in row["differences"].items() if p.startswith(f"{way} - ")]
                rows.append([f"`{ref}`", f"`{writer}`", way, brackets(s["srcc"]), *(swapped or ["–"])])
    heading = ["texts about", "written by", "scored", "SRCC", "minus the own reader"]
    return table(heading, rows, _foot(content))


def attention() -> str:
    """Share of attention by layer, at the score token; even; while the reasoning is written."""
    content = read("analysis/attention")
    rows = []
    for ref, row in content["results"].items():
        places = {("all layers" if k == "all" else f"layer {k}"): v for k, v in row["score"].items()}
        places = {f"score, {name}": v for name, v in places.items()}
        places |= {"if spread evenly": row["even"], "while writing the text": row["text"]["all"]}
        rows += [[f"`{ref}`", place, *(brackets(s[part]) for part in s)] for place, s in places.items()]
    heading = ["images of", "attention at", "to the image", "question", "text", "answer so far"]
    return table(heading, rows, _foot(content))


def compression() -> str:
    """Visual tokens against text tokens."""
    content = read("analysis/compression")
    rows = [
        [f"`{ref}`", str(row["n"]), *(brackets(row[k], form=".2f") for k in ("visual", "text", "ratio"))]
        for ref, row in content["results"].items()
    ]
    return table(["images of", "n", "visual tokens", "text tokens", "visual / text"], rows, _foot(content))


def domains() -> str:
    """Gap between data sets by space."""
    content = read("analysis/domains")
    rows = []
    for space, row in content["results"]["spaces"].items():
        every = row["classifier"]
        rows.append([space, f"all (chance {every['chance']:.2f})", brackets(every), "", "", ""])
        for p in row["pairs"]:
            numbers = [brackets(p["classifier"]), brackets(p["mmd2"], form=".4f"), f"{p['mmd2']['p']:.3f}"]
            rows.append([space, f"`{p['a']}`, `{p['b']}`", *numbers, brackets(p["cka"])])
    heading = ["space", "data sets", "classifier", "MMD²", "p", "CKA of covariances"]
    return table(heading, rows, _foot(content))


def ablations() -> str:
    """What each part of RALI is worth; the file is that of ``rali-zoo analyze ablations``."""
    content = read("analysis/ablations")
    results = content["results"]
    refs = list(results["tests"])
    rows = []
    for name, row in results["mean"].items():
        minus = row.get("minus")
        gap = ["–", "–"] if minus is None else [brackets(minus, form="+.3f"), f"{minus['p_holm']:.3f}"]
        each = [brackets(results["tests"][ref]["variants"][name]["srcc"]) for ref in refs]
        rows.append([name, brackets(row["srcc"]), *gap, *each])
    heading = ["config", "SRCC, mean", "minus the complete one", "p (Holm)", *(f"`{ref}`" for ref in refs)]
    n = ", ".join(str(results["tests"][ref]["n"]) for ref in refs)
    foot = (
        f"{len(results['seeds'])} seeds; intervals over seeds and contents; {n} test images (**synthetic "
        f"labels**). {_machine(content, ('torch',))}."
    )
    return table(heading, rows, foot)


# ---- beyond the paper ----


def _part(name: str) -> dict[str, Any] | str:
    """A part of ``beyond.json``, or how to measure it."""
    absent = f"Not measured yet: `python benchmarks/studies/beyond.py --parts {name}` does."
    found: dict[str, Any] | None = read("beyond").get(name)
    return absent if found is None else found


def _minus_first(row: Content) -> str:
    other = next((v for k, v in row.items() if k.startswith("minus ")), None)
    return "" if other is None else to(other, "difference", "low", "high", "+.3f")


def beyond_uncertainty() -> str:
    """SRCC of distribution heads against a plain one, coverage and width of their intervals."""
    content = _part("distribution")
    if isinstance(content, str):
        return content
    rows = []
    for name, seeds in content["variants"].items():
        for seed, row in seeds.items():
            cells = [f"{name}, {seed}", to(row, "srcc", "srcc_low", "srcc_high"), _minus_first(row)]
            rows.append([*cells, *(_intervals(row["intervals"]) if "intervals" in row else [""] * 4)])
    heading = [
        "head", "SRCC (95 %)", f"minus {content['compared with']}", "coverage at 50 / 80 / 95 %",
        "normal quantiles instead", "width at 95 %; one for all", "SRCC of std and error",
    ]  # fmt: skip
    about = f"{content['data']}, encoder {content['encoder']}, {content['epochs']} epochs"
    return table(heading, rows, f"{about}; {provenance(content)}.")


def _intervals(found: Content) -> list[str]:
    levels, wide = found["levels"], found["levels"]["0.95"]
    coverage = [
        " / ".join(f"{levels[level][kind]['coverage']:.3f}" for level in ("0.5", "0.8", "0.95"))
        for kind in ("conformal", "normal")
    ]
    width = f"{wide['conformal']['width']:.2f}; {wide['constant']['width']:.2f}"
    return [*coverage, width, to(found, "error_srcc", "error_srcc_low", "error_srcc_high")]


def beyond_routing() -> str:
    """SRCC against the share of images that go to the reasoner, for each cheap scorer."""
    content = _part("routing")
    if isinstance(content, str):
        return content
    heading = ["routed", "SRCC (95 %)", "at random", "gain (95 %)", "oracle"]
    parts = []
    for name, curve in content.items():
        if not isinstance(curve, dict) or "points" not in curve:
            continue
        rows = [
            [f"{p['share']:.0%}", to(p, "srcc", "low", "high"), f"{p['random']:.3f}",
             to(p, "gain", "gain_low", "gain_high", "+.3f"), f"{p['oracle']:.3f}"]
            for p in curve["points"]
        ]  # fmt: skip
        title = f"**{name}** (n = {curve['n']}; SRCC of uncertainty and error {curve['error_srcc']:.3f})"
        parts.append(f"{title}\n\n{table(heading, rows)}\n")
    return "\n".join([*parts, f"{content['data']}; {provenance(content)}."])


def _ridges(part: str) -> str:
    content = _part(part)
    if isinstance(content, str):
        return content
    rows = [
        [name, str(row["dimensions"]), to(row, "srcc", "srcc_low", "srcc_high"), _minus_first(row)]
        for name, row in content["variants"].items()
    ]
    test = next(iter(content["variants"].values()))["n"]
    about = f"{content['data']}; {content['head']} on {content['trained on']} images, {test} test images"
    heading = ["what the head sees", "numbers", "SRCC (95 %)", "minus the first"]
    return table(heading, rows, f"{about}; {provenance(content)}.")


#: Name of the markers to what stands between them.
TABLES: dict[str, Callable[[], str]] = {
    "quickstart": quickstart,
    "reasoner": reasoner,
    "rl_study": rl_study,
    "biq2021": biq2021,
    "comparison": comparison,
    "speed": speed,
    "speed_gpu": lambda: speed(read("speed_gpu")),
    "scale_out": lambda: scale_out.block(read("speed"), read("speed_gpu")),
    "photo": photo,
    "photo_others": photo_others,
    "photo_few": lambda: photo_others(few=True),
    "photo_pairs": photo_pairs,
    "photo_weakest": photo_weakest,
    "photo_ratings": photo_ratings,
    "paper_study": paper_study,
    "paper_domains": paper_domains,
    "paper_pairs": paper_pairs,
    "paper_scales": paper_scales,
    "paper_texts": paper_texts,
    "paper_attention": paper_attention,
    "paper_gaps": paper_gaps,
    "paper_claims": paper_claims,
    "analysis_texts": lambda: _scores("text-vs-image"),
    "analysis_conflict": conflict,
    "analysis_no_reasoning": lambda: _scores("no-reasoning"),
    "analysis_attention": attention,
    "analysis_compression": compression,
    "analysis_swap": swap,
    "analysis_domains": domains,
    "analysis_ablations": ablations,
    "beyond_uncertainty": beyond_uncertainty,
    "beyond_routing": beyond_routing,
    "beyond_fusion": lambda: _ridges("fusion"),
    "beyond_crops": lambda: _ridges("crops"),
}
_BLOCK = re.compile(r"(<!-- ([a-z0-9_]+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def render(text: str, page: str = "README.md") -> str:
    """A page with every table between its markers made anew."""

    def fill(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise SystemExit(f"{page} asks for a table {match[2]!r}; there are {', '.join(TABLES)}")
        return f"{match[1]}{TABLES[match[2]]()}\n{match[3]}"

    return _BLOCK.sub(fill, text)


def pages() -> list[Path]:
    """README and all pages of the documentation.

    Raises:
        SystemExit: a table stands nowhere.
    """
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    asked = {match[2] for page in found for match in _BLOCK.finditer(page.read_text())}
    if missing := sorted(set(TABLES) - asked):
        raise SystemExit(f"no page has the markers <!-- {missing[0]} --> … <!-- /{missing[0]} -->")
    return found


def main() -> None:
    """Write or check."""
    for path in pages():
        old = path.read_text()
        new = render(old, path.name)
        if new == old:
            continue
        if "--check" in sys.argv[1:]:
            raise SystemExit(f"{path.relative_to(ROOT)} is stale: run python benchmarks/studies/tables.py")
        path.write_text(new)


if __name__ == "__main__":
    main()
