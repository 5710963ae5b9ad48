"""Suites: every mistake in a file is found before anything runs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rali_zoo.bench.suite import CostPlan, parse_suite, read_suite
from rali_zoo.errors import ConfigError, RaliZooError

SUITES = Path(__file__).resolve().parents[2] / "benchmarks" / "suites"
GOOD = {"models": ["rali-tiny-synthetic"], "datasets": ["synthetic:lab"]}


def test_defaults():
    suite = parse_suite(GOOD, "mine")
    assert suite.name == "mine" and suite.split == "test" and suite.limit is None and suite.seed == 0
    assert suite.cost == CostPlan()
    (model,) = suite.models
    assert (model.ref, model.name, model.source) == ("rali-tiny-synthetic", "rali-tiny-synthetic", "rali_zoo")


def test_a_model_and_a_data_set_may_say_more():
    model = {"ref": "csv:mine.csv?column=s", "name": "mine", "licence": "MIT", "batch_size": 4}
    suite = parse_suite(
        {
            "models": [model],
            "datasets": [{"ref": "koniq10k", "publish": True}],
            "limit": 20,
            "cost": {"against": "rali-tiny-synthetic", "seconds": 1, "batch_sizes": [1, 4]},
        },
        "x",
    )
    one = suite.models[0]
    assert (one.name, one.licence, one.batch_size, one.source) == ("mine", "MIT", 4, "csv")
    assert suite.datasets[0].publish is True and suite.limit == 20
    assert suite.cost == CostPlan(against="rali-tiny-synthetic", batch_sizes=[1, 4], seconds=1)
    assert parse_suite({**GOOD, "cost": False}, "x").cost is None


def test_groups_are_every_metric_that_needs_no_weights():
    suite = parse_suite({**GOOD, "models": ["pyiqa:*offline"], "exclude": ["pyiqa:mad"]}, "x")
    names = [m.name for m in suite.models]
    assert {"pyiqa:psnr", "pyiqa:piqe", "pyiqa:ssim"} <= set(names)
    assert "pyiqa:mad" not in names and "pyiqa:niqe" not in names
    assert all(m.source == "pyiqa" for m in suite.models)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modles": []}, "Did you mean 'models'"),
        ({"models": []}, "at least 1 item"),
        ({"models": ["rali-tiny-sinthetic"]}, "Did you mean 'rali-tiny-synthetic'"),
        ({"models": ["pyiqua:niqe"]}, "Did you mean 'pyiqa'"),
        ({"models": ["piq:gmsdd"]}, "Did you mean 'gmsd'"),
        ({"models": ["piq:*onfline"]}, "Did you mean 'piq:*offline'"),
        ({"models": [{"ref": "rali-tiny-synthetic", "batchsize": 3}]}, "Did you mean 'batch_size'"),
        ({"models": [{"ref": "rali-tiny-synthetic", "batch_size": "3"}]}, "should be a valid integer"),
        (
            {"models": [{"ref": "rali-tiny-synthetic", "batch_size": 0}]},
            "batch_size: should be greater",
        ),
        ({"models": [{"name": "x"}]}, "models.0.ref is missing"),
        ({"models": ["rali-tiny-synthetic", "rali-tiny-synthetic"]}, "two models are called"),
        ({"models": [{"ref": "piq:*offline", "name": "x"}]}, "takes no name"),
        ({"exclude": ["piq:gmsd"]}, "no model of the suite is 'piq:gmsd'"),
        ({"exclude": ["rali-tiny-synthetic"]}, "every model"),
        ({"datasets": ["koniq10"]}, "Did you mean 'koniq10k'"),
        ({"datasets": ["synthetik:lab"]}, "Did you mean 'synthetic'"),
        ({"datasets": ["synthetic:lab", "synthetic:lab"]}, "twice"),
        ({"datasets": [{"ref": "synthetic:lab", "publish": "yes"}]}, "should be a valid boolean"),
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"limit": 0}, "limit: should be greater than or equal to 1, not 0"),
        ({"limit": True}, "should be a valid integer"),
        ({"seed": -1}, "seed"),
        ({"cost": {"against": "rali-tiny"}}, "is no model"),
        ({"cost": {"second": 3}}, "Did you mean 'seconds'"),
        ({"cost": {"batch_sizes": [0]}}, "greater than or equal to 1"),
        ({"cost": {"seconds": float("nan")}}, "cost.seconds"),
        ({"datasets": ["webdataset:pipe:touch /tmp/x"]}, "no commands or addresses (pipe:"),
        ({"datasets": ["webdataset:https://example.org/a.tar"]}, "no commands or addresses (https://"),
        ({"models": [{"ref": "csv:http://example.org/a.csv"}]}, "no commands or addresses (http://"),
        ({"cost": {"batch_sizes": 4}}, "should be a valid list"),
    ],
)
def test_mistakes_are_named(change, said):
    with pytest.raises(RaliZooError) as told:
        parse_suite({**GOOD, **change}, "x")
    assert said in str(told.value)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="there is no suite"):
        read_suite(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- rali-tiny-synthetic\n")
    with pytest.raises(ConfigError, match=r"list\.yaml: expected keys and values"):
        read_suite(tmp_path / "list.yaml")
    (tmp_path / "twice.yaml").write_text("models: [rali-tiny-synthetic]\nmodels: []\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml.*'models' stands there twice"):
        read_suite(tmp_path / "twice.yaml")
    (tmp_path / "zero.yaml").write_text("models: [rali-tiny-synthetic]\ndatasets: [koniq10k]\nlimit: 0\n")
    with pytest.raises(ConfigError, match=r"zero\.yaml"):
        read_suite(tmp_path / "zero.yaml")
    (tmp_path / "bad.yaml").write_text("models: [\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml cannot be read as yaml"):
        read_suite(tmp_path / "bad.yaml")


def test_mutated_suites_end_in_one_error_each(tmp_path):
    text = (SUITES / "smoke.yaml").read_text()
    path, rng = tmp_path / "s.yaml", random.Random(0)
    for _ in range(300):
        i, j = sorted((rng.randrange(len(text)), rng.randrange(len(text))))
        odd = rng.choice(
            ["", "[", "{", ": ", "!!python/object:os.system x", "&a *a", "-1", "1e999", "\0", "- -"]
        )
        path.write_text(text[:i] + odd + text[rng.choice([i, j, i + 1]) :])
        try:
            read_suite(path)
        except RaliZooError as error:
            assert str(error)


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_suites_hold_no_mistake(path):
    suite = read_suite(path)
    assert suite.name == path.stem and suite.models and suite.datasets
