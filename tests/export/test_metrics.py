"""torchmetrics and pyiqa, and one test in which all ways to a score agree."""

from __future__ import annotations

import pytest
import torch
from export_toys import random_images

import rali_zoo
from rali_zoo.errors import ConfigError


@pytest.fixture(scope="module")
def pyiqa():
    found = pytest.importorskip("pyiqa")
    rali_zoo.register_pyiqa()
    return found


def scores_of(scorer, image):
    return torch.tensor([s.score for s in scorer.score(list(image))])


def test_the_metric_is_the_mean_of_the_scores(tiny):
    image = random_images(5, 100, 120)
    expected = scores_of(tiny, image)
    metric, each = rali_zoo.RALIScore(tiny), rali_zoo.RALIScore("rali-tiny-synthetic", reduction="none")
    for part in (image[:2], (image[2:] * 255).byte()):  # floats, then bytes
        metric.update(part)
        each.update(part)
    assert torch.allclose(metric.compute(), expected.mean(), rtol=0, atol=1e-6)
    assert torch.allclose(each.compute(), expected, rtol=0, atol=1e-6)
    assert torch.allclose(metric(image[:1]), expected[0], rtol=0, atol=1e-6)  # forward: of this batch
    assert metric.higher_is_better and not metric.is_differentiable and not metric.state_dict()


def test_the_metric_starts_again_and_its_parts_add_up(tiny):
    from torchmetrics import MetricCollection

    image = random_images(4, 64, 64)
    metrics = MetricCollection({"quality": rali_zoo.RALIScore(tiny)}).clone(prefix="val_")
    metrics.update(image)
    assert float(metrics.compute()["val_quality"]) == pytest.approx(float(scores_of(tiny, image).mean()))
    metrics.reset()
    assert torch.isnan(metrics["quality"].compute())
    assert rali_zoo.RALIScore(tiny, "none").compute().shape == (0,)
    # What several processes do: their sums and counts are added.
    one, two = rali_zoo.RALIScore(tiny), rali_zoo.RALIScore(tiny)
    one.update(image[:1])
    two.update(image[1:])
    one.total, one.count = one.total + two.total, one.count + two.count
    assert float(one.compute()) == pytest.approx(float(scores_of(tiny, image).mean()), abs=1e-6)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (torch.zeros(3, 64, 64), "expected"),
        (torch.zeros(1, 1, 64, 64), "expected"),
        (torch.full((1, 3, 64, 64), 1.5), "image 0 of the batch"),
        (torch.full((1, 3, 64, 64), float("nan")), "image 0 of the batch"),
    ],
)
def test_images_that_are_none_are_said(tiny, image, says):
    with pytest.raises(ConfigError, match=says):
        rali_zoo.RALIScore(tiny).update(image)


def test_a_reduction_that_is_none_is_said(tiny):
    with pytest.raises(ConfigError, match="mean, none"):
        rali_zoo.RALIScore(tiny, reduction="sum")


def test_pyiqa_builds_it_by_name(pyiqa, tiny, photo, tmp_path):
    from PIL import Image

    metric = pyiqa.create_metric("rali", device="cpu")
    assert "rali" in pyiqa.list_models(metric_mode="NR") and not metric.lower_better
    Image.fromarray(photo(70, 90)).save(tmp_path / "a.png")
    expected = tiny.score(tmp_path / "a.png")[0].score
    assert float(metric(str(tmp_path / "a.png"))) == pytest.approx(expected, abs=1e-6)
    grey = random_images(1, 64, 64)[:, :1]
    assert float(metric(grey)) == pytest.approx(
        tiny.score(list(grey.expand(-1, 3, -1, -1)))[0].score, abs=1e-6
    )
    with pytest.raises(AssertionError, match=r"\[0, 1\]"):
        metric(torch.full((1, 3, 64, 64), 3.0))


def test_the_pyiqa_loss_has_gradients_and_reductions(pyiqa, tiny):
    image = random_images(2, 100, 90).requires_grad_()
    each = pyiqa.create_metric("rali", as_loss=True, loss_reduction="none", device="cpu")
    mean = pyiqa.create_metric("rali", as_loss=True, device="cpu")
    assert each(image).shape == (2, 1)
    assert torch.allclose(each(image).mean(), mean(image))
    (-mean(image)).backward()
    assert image.grad.abs().sum(dim=(1, 2, 3)).min() > 0
    assert all(p.grad is None for p in mean.parameters())


def test_another_model_by_name_or_for_one_metric(pyiqa, clip, tmp_path):
    folder = rali_zoo.save_pretrained(clip, tmp_path / "clip", "other")
    image = random_images(2, 40, 40)
    expected = scores_of(clip, image)
    given = pyiqa.create_metric("rali", model=f"local-dir:{folder}", device="cpu")
    rali_zoo.register_pyiqa("rali-clip", f"local-dir:{folder}")
    named = pyiqa.create_metric("rali-clip", device="cpu")
    for metric in (given, named):
        assert torch.allclose(metric(image)[:, 0], expected, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="pyiqa has a metric 'musiq' of its own"):
        rali_zoo.register_pyiqa("musiq")


def test_all_ways_give_equal_scores(pyiqa, tiny, exported, tmp_path):
    """Files as the command scores them; arrays; pyiqa; torchmetrics; the hub; two runtimes; the loss."""
    from PIL import Image

    image = random_images(4, 120, 170, seed=8)
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    for photo, path in zip(image, paths, strict=True):
        Image.fromarray((photo * 255).byte().permute(1, 2, 0).numpy()).save(path)
    expected = torch.tensor([s.score for s in tiny.score(paths)])
    assert float(expected.max() - expected.min()) > 0.05

    metric = rali_zoo.RALIScore(tiny, reduction="none")
    metric.update(image)
    hub = rali_zoo.from_pretrained(rali_zoo.save_pretrained(tiny, tmp_path / "hub", "apache-2.0"))
    found = {
        "torchmetrics": metric.compute(),
        "pyiqa": pyiqa.create_metric("rali", device="cpu")(image)[:, 0],
        "hub": scores_of(hub, image),
        "onnx": scores_of(rali_zoo.load_model(exported("tiny", "onnx")), image),
        "openvino": scores_of(rali_zoo.load_model(exported("tiny", "openvino")), image),
    }
    for name, scores in found.items():
        assert torch.allclose(scores, expected, rtol=0, atol=1e-5), name
    # A loss resizes in floating point; at the network's own size nothing is resized.
    own = random_images(2, 160, 160, seed=9)
    loss = pyiqa.create_metric("rali", as_loss=True, loss_reduction="none", device="cpu")
    assert torch.allclose(loss(own)[:, 0], scores_of(tiny, own), rtol=0, atol=1e-5)
    assert torch.allclose(loss(image)[:, 0], expected, rtol=0, atol=0.03)
