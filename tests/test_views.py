"""Resizing and cropping against transformers and torchvision; views by their shapes and their pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rali_zoo.errors import ConfigError
from rali_zoo.types import Preprocess
from rali_zoo.views import View, fit, grid_crops, grid_places, levels, random_crop, to_tensor, unit

SIZES = [
    (100, 75),
    (75, 100),
    (101, 64),
    (64, 103),
    (51, 32),
    (33, 200),
    (32, 32),
    (47, 46),
    (20, 13),
    (640, 427),
]
SQUARE = Preprocess(size=(32, 32), resize="center_crop")


@pytest.fixture(scope="module")
def photo(photo):
    """Maker of images with detail in every pixel: a shift by one would show."""

    def make(width, height):
        noise = np.random.default_rng(0).integers(-40, 40, (height, width, 3))
        return Image.fromarray(np.clip(photo(height, width).astype(int) + noise, 0, 255).astype(np.uint8))

    return make


def _apart(a, b):
    """In levels of 255; what is no uint8 is in [0, 1]."""
    a, b = (x.float() if x.dtype == torch.uint8 else x * 255 for x in (a, b))
    return (a - b).abs().max().item()


@pytest.mark.parametrize("size", SIZES)
def test_floor_rule_equals_transformers(photo, size):
    processors = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = processors.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_normalize=False
    )
    theirs = torch.as_tensor(np.asarray(processor(photo(*size))["pixel_values"][0]))
    thin = max(size) > 4 * min(size)  # only the box is computed, and rounded in another order
    assert _apart(to_tensor(photo(*size), SQUARE), theirs) <= (2 if thin else 0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_round_rule_equals_torchvision(photo, size, interpolation):
    """What open_clip and timm compose: Resize of the short side, CenterCrop, ToTensor."""
    from torchvision import transforms as tv

    theirs = tv.Compose(
        [tv.Resize(32, tv.InterpolationMode(interpolation)), tv.CenterCrop(32), tv.ToTensor()]
    )(photo(*size))
    ours = to_tensor(photo(*size), replace(SQUARE, crop_rule="round", interpolation=interpolation))
    assert _apart(ours, theirs) <= (2 if max(size) > 4 * min(size) else 0)


def test_the_two_rules_differ_by_a_pixel_on_some_odd_remainders(photo):
    """Else the two tests above would not tell which rule is which."""
    image = photo(35, 32)  # a remainder of 3: floor starts at 1, round at 2
    floor, rounded = (levels(image)[:, :, start : start + 32] for start in (1, 2))
    assert torch.equal(to_tensor(image, SQUARE), floor)
    assert torch.equal(to_tensor(image, replace(SQUARE, crop_rule="round")), rounded)
    assert _apart(floor, rounded) > 20


def test_squash_equals_pillow(photo):
    image = photo(101, 64)
    wanted = levels(image.resize((48, 40), Image.Resampling.BILINEAR))
    ours = to_tensor(image, Preprocess(size=(40, 48), interpolation="bilinear"))
    assert ours.shape == (3, 40, 48) and ours.dtype == torch.uint8
    assert torch.equal(ours, wanted)


def test_none_keeps_every_pixel(photo):
    image = photo(37, 21)
    ours = to_tensor(image, Preprocess(size=(8, 8), resize="none"))
    assert torch.equal(ours.permute(1, 2, 0), torch.from_numpy(np.array(image)))


def test_center_crop_to_a_rectangle(photo):
    ours = to_tensor(photo(100, 100), replace(SQUARE, size=(20, 40)))
    wanted = photo(100, 100).resize((40, 40), Image.Resampling.BICUBIC).crop((0, 10, 40, 30))
    assert _apart(ours, levels(wanted)) <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(1, 64),
    st.integers(1, 64),
    st.sampled_from(["floor", "round"]),
)
def test_center_crop_of_any_shape(width, height, h, w, rule):
    image = Image.new("RGB", (width, height), (10, 200, 30))
    ours = to_tensor(image, Preprocess(size=(h, w), resize="center_crop", crop_rule=rule))
    assert ours.shape == (3, h, w)
    assert _apart(ours, torch.tensor([10, 200, 30])[:, None, None] / 255) <= 1


@pytest.mark.parametrize("view", ["center_crop", "random_crop", "grid", "multi"])
def test_thin_images_are_never_resized_whole(view, monkeypatch):
    """Resized before it is cropped, a 5000 x 2 image would be 840,000 pixels wide, over a gigabyte."""
    made, resize = [], Image.Image.resize

    def recorded(self, *args, **options):
        out = resize(self, *args, **options)
        made.append(out.size)
        return out

    monkeypatch.setattr(Image.Image, "resize", recorded)
    out = View(view, size=336)(Image.new("RGB", (5000, 2), (9, 9, 9)), SQUARE)
    assert out.shape[-3:] == (3, 336, 336)
    assert _apart(out, torch.tensor(9 / 255)) < 0.01
    assert made and set(made) == {(336, 336)}


def test_only_rgb():
    with pytest.raises(ValueError, match="load_image"):
        levels(Image.new("L", (4, 4)))


def test_fit_keeps_the_aspect_and_never_enlarges(photo):
    image = photo(200, 100)
    assert fit(image, long_side=50).size == (50, 25)
    assert fit(image, area=5000).size == (100, 50)
    assert fit(image, long_side=100, area=800).size == (40, 20)
    assert fit(image, long_side=400, area=10**6) is image
    assert fit(image) is image
    assert fit(Image.new("RGB", (5000, 2)), long_side=100).size == (100, 1)


def test_random_crops_are_native_pixels_from_everywhere(photo):
    image = photo(40, 33)
    native = levels(image)
    generator = torch.Generator().manual_seed(0)
    places = set()
    for _ in range(200):
        crop = levels(random_crop(image, (32, 32), generator))
        hit = [
            (t, x) for t in range(2) for x in range(9) if torch.equal(native[:, t : t + 32, x : x + 32], crop)
        ]
        places.update(hit)
        assert len(hit) == 1
    assert len(places) == 18


def test_small_images_are_enlarged_to_fit(photo):
    image = photo(20, 10)
    crop = random_crop(image, (40, 40), torch.Generator().manual_seed(0))
    assert crop.size == (40, 40)
    enlarged = levels(image.resize((80, 40), Image.Resampling.BICUBIC))
    best = min(_apart(enlarged[:, :, x : x + 40], levels(crop)) for x in range(41))
    assert best <= 2


@settings(max_examples=100, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.integers(1, 12))
def test_grid_places_are_inside_and_always_as_many(height, width, crops):
    places = grid_places((height, width), (8, 8), crops)
    assert len(places) == crops
    assert all(0 <= t <= height - 8 and 0 <= x <= width - 8 for t, x in places)
    if height > 100 and width > 100:
        assert len(set(places)) == crops


def test_grid_follows_the_shape():
    assert grid_places((20, 20), (10, 10), 4) == [(0, 0), (0, 10), (10, 0), (10, 10)]
    assert grid_places((10, 40), (10, 10), 4) == [(0, 0), (0, 10), (0, 20), (0, 30)]
    assert grid_places((40, 10), (10, 10), 4) == [(0, 0), (10, 0), (20, 0), (30, 0)]
    assert grid_places((20, 20), (10, 10), 1) == [(5, 5)]
    assert len({top for top, _ in grid_places((30, 30), (10, 10), 5)}) == 2


def test_grid_crops_are_native(photo):
    image = photo(20, 20)
    crops = grid_crops(image, (10, 10), 4)
    assert torch.equal(
        torch.cat([torch.cat([crops[0], crops[1]], 2), torch.cat([crops[2], crops[3]], 2)], 1), levels(image)
    )


@pytest.mark.parametrize("view,shape", [
    (View(), (3, 32, 32)),
    (View("whole"), (3, 32, 32)),
    (View("whole", size=24), (3, 24, 24)),
    (View("center_crop", size=16), (3, 16, 16)),
    (View("random_crop", size=16), (3, 16, 16)),
    (View("random_crop", size=16, crops=3), (3, 3, 16, 16)),
    (View("grid", size=16), (3, 16, 16)),
    (View("grid", crops=5), (5, 3, 32, 32)),
    (View("multi", size=16, crops=4), (5, 3, 16, 16)),
    (View("multi_random", size=16, crops=2, flip=True), (3, 3, 16, 16)),
])  # fmt: skip
def test_shapes_of_views(photo, view, shape):
    out = view(photo(90, 60), SQUARE)
    assert out.shape == shape and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1


def test_views_show_what_they_say(photo):
    image = photo(90, 60)
    squash = replace(SQUARE, resize="squash")
    assert torch.equal(View().cut(image, SQUARE), to_tensor(image, SQUARE))
    assert torch.equal(View().cut(image, replace(SQUARE, resize="none")), levels(image))
    assert torch.equal(View(size=32).cut(image, replace(SQUARE, resize="none")), to_tensor(image, squash))
    assert torch.equal(View("whole").cut(image, SQUARE), to_tensor(image, squash))
    assert torch.equal(View("center_crop").cut(image, squash), to_tensor(image, SQUARE))
    multi = View("multi", size=32, crops=3).cut(image, SQUARE)
    assert torch.equal(multi[0], to_tensor(image, squash))
    assert torch.equal(multi[1:], View("grid", size=32, crops=3).cut(image, SQUARE))


def test_networks_see_levels_from_0_to_1(photo):
    image = photo(90, 60)
    seen = View()(image, SQUARE)
    assert torch.equal(seen, unit(to_tensor(image, SQUARE))) and seen.dtype == torch.float32
    assert torch.equal(unit(torch.tensor([0, 51, 255], dtype=torch.uint8)), torch.tensor([0, 51 / 255, 1]))


def test_random_views_follow_their_generator(photo):
    image, view = photo(90, 60), View("multi_random", size=16, crops=2, flip=True)
    draws = [view(image, SQUARE, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    torch.manual_seed(3)
    first = view(image, SQUARE)
    torch.manual_seed(3)
    assert torch.equal(first, view(image, SQUARE))


def test_flip_mirrors_half_of_the_visits(photo):
    image, generator = photo(40, 40), torch.Generator().manual_seed(0)
    plain = View("whole")(image, SQUARE)
    outs = [View("whole", flip=True)(image, SQUARE, generator) for _ in range(60)]
    same = sum(torch.equal(out, plain) for out in outs)
    mirrored = sum(_apart(out, plain.flip(-1)) <= 1 for out in outs)
    assert same + mirrored == 60 and 15 <= same <= 45


def test_is_random():
    assert [View(k).is_random for k in ("backbone", "whole", "center_crop", "grid", "multi")] == [False] * 5
    assert (
        View("random_crop").is_random
        and View("multi_random").is_random
        and View("whole", flip=True).is_random
    )


@pytest.mark.parametrize("wrong,message", [
    ({"kind": "random"}, "random_crop"),
    ({"kind": "grid", "crops": 0}, "at least 1"),
    ({"kind": "whole", "size": 0}, "at least 1"),
    ({"kind": "whole", "crops": 2}, "several crops"),
])  # fmt: skip
def test_settings_that_cannot_work(wrong, message):
    with pytest.raises(ConfigError, match=message):
        View(**wrong)


def test_a_config_can_spell_a_view():
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--view", type=View | None, default=None)
    parsed = parser.instantiate(parser.parse_args(["--view", '{"kind": "grid", "size": 96, "crops": 4}']))
    assert parsed.view == View("grid", size=96, crops=4)
    with pytest.raises(jsonargparse.ArgumentError):
        parser.parse_args(["--view", '{"kind": "gird"}'])
