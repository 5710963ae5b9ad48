"""Files of models with anything wrong in them: a model, or one error that names the file; nothing else ends them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import flipped, mutated
from safetensors.torch import save_file

from rali_zoo.errors import RaliZooError
from rali_zoo.models.files import build, describe, load_checkpoint, read_scorer
from rali_zoo.models.regression import RegressionNetwork
from rali_zoo.paths import SHIPPED

COUNTS = [40, pytest.param(2000, marks=pytest.mark.slow)]


def attempt(load: Any, source: str) -> None:
    try:
        load()
    except RaliZooError as error:
        assert source in str(error) or Path(source).name in str(error)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["regression-tiny-synthetic", "rali-tiny-synthetic"])
def test_headers_of_scorer_files(name, count):
    header, weights = read_scorer(SHIPPED[name])
    rng = random.Random(0)
    for _ in range(count):
        wrong = mutated(header, rng)
        attempt(lambda wrong=wrong: build(wrong, dict(weights), "it.safetensors"), "it.safetensors")


@pytest.fixture(scope="module")
def network():
    return RegressionNetwork(hidden=4)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_bytes_of_files(kind, count, network, tmp_path):
    good = tmp_path / f"good.{kind}"
    if kind == "safetensors":
        save_file(network.state_dict(), good, metadata={"rali_zoo": json.dumps(describe(network))})
    else:
        state = {f"network.{k}": v for k, v in network.state_dict().items()}
        torch.save({"state_dict": state, "rali_zoo": {"network": describe(network)}}, good)
    load_checkpoint(str(good))
    data, rng, wrong = good.read_bytes(), random.Random(0), tmp_path / f"wrong.{kind}"
    for _ in range(count):
        wrong.write_bytes(flipped(data, rng))
        attempt(lambda: load_checkpoint(str(wrong)), wrong.name)


@pytest.mark.parametrize("count", COUNTS)
def test_contents_of_checkpoints(count, network, tmp_path):
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    content = {"state_dict": state, "rali_zoo": {"network": describe(network)}, "hyper_parameters": {}}
    rng, wrong = random.Random(0), tmp_path / "wrong.ckpt"
    for _ in range(count):
        torch.save(mutated(content, rng), wrong)
        attempt(lambda: load_checkpoint(str(wrong)), wrong.name)
