"""The DataModule: roles, mixing, bad images, streams. A stand-in module takes the place of a model."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.errors import ConfigError, ScoreTableError, UriError
from rali_zoo.types import Preprocess
from rali_zoo.views import View


class Looker(L.LightningModule):
    """Keeps the batches it is shown."""

    can_cache = False
    learns_ranks = False
    preprocess = Preprocess(size=(24, 24))

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches = []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        return self.weight * 0.0

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(data: IQADataModule, epochs: int = 1) -> list:
    module = Looker()
    loop = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    loop.fit(module, data)
    return module.batches


@pytest.fixture
def two_sets(tmp_path, photo) -> tuple[str, str]:
    """A csv data set of 30 images and one of 6."""
    refs = []
    for name, n in (("big", 30), ("small", 6)):
        folder = tmp_path / name
        folder.mkdir()
        for i in range(n):
            Image.fromarray(photo(30, 40, seed=i)).save(folder / f"{i}.png")
        split = ["val" if i % 6 == 0 else "test" if i % 6 == 1 else "train" for i in range(n)]
        rows = {"image": [f"{i}.png" for i in range(n)], "mos": np.linspace(0, 10, n), "split": split}
        pd.DataFrame(rows).to_csv(folder / "s.csv", index=False)
        refs.append(f"csv:{folder / 's.csv'}?mos_range=0,10")
    return refs[0], refs[1]


def test_roles_shapes_and_ranges(two_sets):
    data = IQADataModule(train=list(two_sets), batch_size=7)
    batches = run(data)
    assert Counter(d for b in batches for d in b["dataset"]) == {two_sets[0]: 20, two_sets[1]: 4}
    first = batches[0]
    assert first["image"].shape == (7, 3, 24, 24) and first["image"].dtype == torch.float32
    assert first["image"].min() >= 0 and first["image"].max() <= 1
    assert first["mos"].min() >= 1 and first["mos"].max() <= 5 and first["std"].isnan().all()
    assert len(data.val_dataloader()) == 2
    train, val = ({i for b in data._sets[role] for i in b.ids} for role in ("train", "val"))
    assert not {f"big{i}" for i in train} & {f"big{i}" for i in val}


def test_balanced_draws_as_many_of_each(two_sets):
    batches = run(IQADataModule(train=list(two_sets), batch_size=6, sampling="balanced"))
    seen = Counter(d for b in batches for d in b["dataset"])
    assert seen[two_sets[0]] == seen[two_sets[1]] > 0


@pytest.mark.parametrize(("size", "batches"), [(19, [19]), (6, [6, 6, 6, 2]), (64, [20])])
def test_no_last_batch_of_a_single_image(two_sets, size, batches):
    """Batch normalisation cannot learn from it; 20 images are there to train on."""
    data = IQADataModule(train=two_sets[0], batch_size=size)
    assert [len(b["id"]) for b in run(data)] == batches


def test_single_dataset_batches_stay_inside_one(two_sets):
    batches = run(IQADataModule(train=list(two_sets), batch_size=4, sampling="single_dataset"))
    assert all(len(set(b["dataset"])) == 1 for b in batches)
    assert {d for b in batches for d in b["dataset"]} == set(two_sets)


def test_order_depends_on_seed_and_epoch_only(two_sets):
    def order(seed, epochs):
        return [i for b in run(IQADataModule(train=[two_sets[0]], seed=seed), epochs) for i in b["id"]]

    one = order(0, 2)
    assert one == order(0, 2) and one != order(1, 2) and one[:20] != one[20:]


def test_views_of_native_pixels(two_sets):
    views = {"train_view": View("random_crop", size=16, crops=2), "eval_view": View("grid", size=16, crops=3)}
    data = IQADataModule(train=[two_sets[0]], batch_size=4, **views)
    assert run(data)[0]["image"].shape == (4, 2, 3, 16, 16)
    assert next(iter(data.val_dataloader()[0]))["image"].shape == (4, 3, 3, 16, 16)
    assert next(iter(data.train_eval_dataloader()))["image"].shape == (4, 3, 3, 16, 16)


def test_limit_and_missing_rows_are_said(two_sets, tmp_path):
    assert len(run(IQADataModule(train=[two_sets[0]], limit=5, batch_size=1))) == 5
    with pytest.raises(ConfigError, match="nothing to train"):
        run(IQADataModule())
    pd.DataFrame({"image": ["0.png"], "mos": [1], "split": ["test"]}).to_csv(
        tmp_path / "big" / "t.csv", index=False
    )
    with pytest.raises(ConfigError, match="no train rows"):
        run(IQADataModule(train=[f"csv:{tmp_path / 'big' / 't.csv'}?mos_range=0,10"]))


def test_unreadable_training_images(two_sets, tmp_path, caplog):
    (tmp_path / "big" / "2.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"1 of 20 images left out.*max_undecodable = 1.0%"):
        run(IQADataModule(train=[two_sets[0]]))
    batches = run(IQADataModule(train=[two_sets[0]], max_undecodable=0.1))
    assert sum(len(b["id"]) for b in batches) == 19
    assert "left out" in caplog.text


def test_descriptions_reach_their_images(two_sets, tmp_path):
    table = pd.DataFrame(
        [
            {
                "dataset": two_sets[1],
                "image_id": f"{i}.png",
                "text": f"image {i}, {s}",
                "teacher": "t",
                "seed": s,
            }
            for i in range(6)
            for s in range(2)
        ]
    ).assign(score=3.0, revision="1")
    table.to_parquet(tmp_path / "d.parquet", index=False)
    data = IQADataModule(train=[two_sets[1]], descriptions=[str(tmp_path / "d.parquet")], batch_size=2)
    for batch in run(data, epochs=3):
        assert [t.split(",")[0] for t in batch["text"]] == [
            f"image {i.removesuffix('.png')}" for i in batch["id"]
        ]
    table[table["image_id"] != "2.png"].to_parquet(tmp_path / "d.parquet", index=False)
    with pytest.raises(ConfigError, match="1 of 4 training images have no description"):
        run(data := IQADataModule(train=[two_sets[1]], descriptions=[str(tmp_path / "d.parquet")]))


def shards(folder: Path, photo, mos: float = 30.0) -> str:
    for shard in range(2):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for i in range(6):
                image = io.BytesIO()
                Image.fromarray(photo(20, 20, seed=i)).save(image, "PNG")
                fields = json.dumps({"mos": mos, "text": f"text {shard} {i}", "dataset": "streamed"}).encode()
                broken = b"no image" if (shard, i) == (0, 0) else image.getvalue()
                for name, content in ((f"{shard}_{i}.png", broken), (f"{shard}_{i}.json", fields)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return f"webdataset:{folder}/{{000..001}}.tar?mos_range=0,100"


def test_streams_of_shards(tmp_path, photo, two_sets, caplog):
    pytest.importorskip("braceexpand", reason="pip install 'rali-zoo[stream]'")
    data = IQADataModule(train=[shards(tmp_path, photo)], val=[two_sets[1]], test=[two_sets[1]], batch_size=4)
    batches = run(data)
    ids = [i for b in batches for i in b["id"]]
    assert sorted(ids) == sorted(f"{s}_{i}" for s in range(2) for i in range(6) if (s, i) != (0, 0))
    assert "0_0 left out" in caplog.text
    torch.testing.assert_close(batches[0]["mos"], torch.full((4,), 1 + 4 * 0.3))
    assert batches[0]["text"][0].startswith("text ") and batches[0]["dataset"][0] == "streamed"
    with pytest.raises(ConfigError, match="can be trained on"):
        IQADataModule(train=[data.train_refs[0]])


def test_streamed_scores_outside_the_range_are_refused(tmp_path, photo, two_sets):
    pytest.importorskip("braceexpand", reason="pip install 'rali-zoo[stream]'")
    with pytest.raises(ScoreTableError, match=r"mos 300.0"):
        run(IQADataModule(train=[shards(tmp_path, photo, mos=300.0)], val=[two_sets[1]], test=[two_sets[1]]))


# ---- what is drawn, and when ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sampling", ["concat", "balanced", "single_dataset"])
def test_a_resumed_fit_sees_what_an_undisturbed_one_sees(two_sets, tmp_path, workers, sampling):
    """Crops, mirroring and the choice of a text depend on seed, epoch and image alone."""
    table = [
        {"dataset": ref, "image_id": f"{i}.png", "text": f"{i} {s}", "teacher": "t", "seed": s}
        for ref in two_sets for i in range(30) for s in range(5)
    ]  # fmt: skip
    pd.DataFrame(table).assign(score=3.0, revision="1").to_parquet(tmp_path / "d.parquet", index=False)

    class Planner(Looker):
        """As modules with a schedule: the number of steps is asked for before a checkpoint is restored."""

        def configure_optimizers(self):
            assert self.trainer.estimated_stepping_batches > 0
            return super().configure_optimizers()

    def fit(folder: Path, epochs: int, num_workers: int, ckpt: str | None = None) -> list:
        module = Planner()
        data = IQADataModule(
            train=list(two_sets), batch_size=6, sampling=sampling, num_workers=num_workers, seed=3,
            train_view=View("random_crop", size=16, crops=2, flip=True), descriptions=str(tmp_path / "d.parquet"),
        )  # fmt: skip
        keep = L.pytorch.callbacks.ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}")
        loop = L.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[keep], enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        torch.manual_seed(epochs * 7 + num_workers)
        loop.fit(module, data, ckpt_path=ckpt, weights_only=True)
        return module.batches

    whole = fit(tmp_path / "whole", 3, 0)
    first = fit(tmp_path / "part", 1, workers)
    rest = fit(tmp_path / "rest", 3, workers, str(tmp_path / "part" / "epoch=0.ckpt"))
    assert len(first + rest) == len(whole)
    for mine, theirs in zip(first + rest, whole, strict=True):
        assert mine["id"] == theirs["id"] and mine["text"] == theirs["text"]
        assert torch.equal(mine["image"], theirs["image"])
    looks = {
        i: [b["image"][j] for b in whole for j, n in enumerate(b["id"]) if n == i] for i in ("2.png", "3.png")
    }
    assert not torch.equal(looks["2.png"][0], looks["2.png"][1])  # and epochs differ


@pytest.mark.parametrize(("setting", "words"), [
    ({"batch_size": 0}, "batch_size=0"), ({"limit": 0}, "limit=0 cannot be; give 1 or more"),
    ({"limit": -1}, "limit=-1"),
    ({"num_workers": -1}, "num_workers=-1"), ({"max_undecodable": 1.5}, "max_undecodable=1.5"),
    ({"max_undescribed": float("nan")}, "max_undescribed=nan"), ({"seed": -1}, "seed=-1"),
    ({"sampling": "mixed"}, "concat, balanced, single_dataset"),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused_by_name(setting, words):
    with pytest.raises(ConfigError, match=words):
        IQADataModule(train="synthetic:lab", **setting)


def test_test_images_are_looked_at_before_training(two_sets, tmp_path):
    (tmp_path / "big" / "7.png").write_bytes(b"no image")  # a row of the test part
    with pytest.raises(ConfigError, match=r"\(test\): 1 of 5 images left out.*7.png"):
        run(IQADataModule(train=[two_sets[0]]))


def test_native_sizes_stay_a_list(tmp_path, photo):
    for i in range(4):
        Image.fromarray(photo(30 + i, 40, seed=i)).save(tmp_path / f"{i}.png")
    frame = {"image": [f"{i}.png" for i in range(4)], "mos": [1, 2, 3, 4], "split": ["train"] * 3 + ["val"]}
    pd.DataFrame(frame).to_csv(tmp_path / "s.csv", index=False)

    class Native(Looker):
        preprocess = Preprocess(size=(24, 24), resize="none")

    module = Native()
    data = IQADataModule(train=f"csv:{tmp_path / 's.csv'}?mos_range=0,10", batch_size=3)
    L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    ).fit(module, data)
    images = module.batches[0]["image"]
    assert isinstance(images, list) and sorted(i.shape[1] for i in images) == [30, 31, 32]


def test_workers_without_room_are_refused(two_sets, monkeypatch):
    monkeypatch.setattr(
        "rali_zoo.data.datamodule.shutil.disk_usage", lambda _: type("Usage", (), {"free": 256 * 1024})
    )
    with pytest.raises(ConfigError, match=r"2 workers keep about .* which has 0.2 MiB.*--shm-size"):
        run(IQADataModule(train=[two_sets[0]], num_workers=2, batch_size=32))


def test_training_without_validation_rows(two_sets, tmp_path, caplog):
    table = pd.read_csv(tmp_path / "big" / "s.csv")
    table["split"] = table["split"].replace("val", "train")
    table.to_csv(tmp_path / "big" / "t.csv", index=False)
    data = IQADataModule(
        train=f"csv:{tmp_path / 'big' / 't.csv'}?mos_range=0,10&val_fraction=0", batch_size=5
    )
    assert len(run(data)) == 5 and data.val_dataloader() == [] and "no validation rows" in caplog.text


# ---- shards --------------------------------------------------------------------------------------------


def pack(path: Path, members: list[tuple[str, bytes]]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return f"webdataset:{path}"


def stream(ref: str, **options) -> list:
    from rali_zoo.data.streaming import ShardStream

    return list(ShardStream([ref], View(), Preprocess(size=(8, 8)), seed=0, **options))


def encoded(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (10, 10), (9, 9, 9)).save(out, kind)
    return out.getvalue()


def test_odd_members_are_left_out_named_and_counted(tmp_path, caplog):
    pytest.importorskip("braceexpand")
    fields = json.dumps({"mos": 50}).encode()
    members = [
        ("IMG.2024.01.jpg", encoded("JPEG")), ("IMG.2024.01.json", fields), ("v1.2/a.tif", encoded("TIFF")),
        ("v1.2/a.json", fields), ("B.JPG", encoded("JPEG")), ("B.json", fields), ("._c.jpg", b"litter"),
        ("alone.png", encoded()), ("nothing.json", fields), ("words.json", b"{"), ("words.png", encoded()),
        ("blank.json", b"{}"), ("blank.png", encoded()), ("readme.txt", b"hello"), ("d.json", fields),
        ("d.qoi", encoded("QOI")),
    ]  # fmt: skip
    ref = pack(tmp_path / "a.tar", members) + "?mos_range=0,100"
    assert sorted(s["id"] for s in stream(ref)) == ["B", "IMG.2024.01", "d", "v1.2/a"]
    for words in (
        "alone left out (has no json)",
        "nothing left out (has no image)",
        "words left out",
        "blank left out",
    ):
        assert words in caplog.text


def test_a_dmos_in_shards_is_flipped(tmp_path):
    pytest.importorskip("braceexpand")
    members = [("a.png", encoded()), ("a.json", json.dumps({"mos": 25, "std": 10}).encode())]
    ref = pack(tmp_path / "a.tar", members) + "?mos_range=0,100&higher_is_better=false"
    (sample,) = stream(ref)
    assert sample["mos"].item() == 4.0 and sample["std"].item() == pytest.approx(0.4)


@pytest.mark.parametrize("ref", [
    "webdataset:pipe:touch%20x", "webdataset:pipe:touch x?remote=true", "webdataset:https://example.org/a.tar",
    "webdataset:ssh://host/a.tar?remote=true", "webdataset:{a,pipe:b}.tar", "webdataset:a.tar::pipe:touch x",
    "webdataset:a.tar?mos_range=x",
])  # fmt: skip
def test_no_command_and_no_address_that_was_not_asked_for(ref, tmp_path):
    pytest.importorskip("braceexpand")
    with pytest.raises(UriError):
        IQADataModule(train=ref, val="synthetic:lab", test="synthetic:lab")


def test_a_shard_that_ends_too_early_is_named(tmp_path):
    pytest.importorskip("braceexpand")
    ref = pack(
        tmp_path / "a.tar", [("a.png", encoded()), ("a.json", b'{"mos": 3}'), ("b.bmp", encoded("BMP") * 99)]
    )
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:3000])
    with pytest.raises(ScoreTableError, match="a.tar is a shard that cannot be read"):
        stream(ref)
    with pytest.raises(ScoreTableError, match="cannot be opened"):
        stream(f"webdataset:{tmp_path}/gone.tar")


# ---- what is remembered --------------------------------------------------------------------------------


def test_failures_of_the_machine_are_not_remembered(tmp_path, photo, monkeypatch):
    from rali_zoo.data import checks
    from rali_zoo.errors import ImageUnavailableError

    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    Image.fromarray(photo(30, 40)).save(tmp_path / "a.png")
    frame = pd.DataFrame({"path": [str(tmp_path / "a.png")]})

    def fails(path):
        raise ImageUnavailableError("Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(checks, "load_image", fails)
        assert checks.undecodable(frame)["reason"].tolist() == ["Too many open files"]
    assert checks.undecodable(frame).empty
    (memory,) = (tmp_path / "cache" / "checked").iterdir()
    for damage in ("", "[", '{"7": "x"}', '{"0": 3}', "[1]"):
        memory.write_text(damage)
        assert checks.undecodable(frame).empty


def test_cached_features_heal_and_serve_every_head(tmp_path, photo, monkeypatch):
    from rali_zoo.data.features import cached_features

    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    for i in range(6):
        Image.fromarray(photo(30, 40, seed=i)).save(tmp_path / f"{i}.png")
    frame = pd.DataFrame({"id": range(6), "path": [str(tmp_path / f"{i}.png") for i in range(6)]})
    frame = frame.assign(mos=3.0, std=0.0)
    seen = []

    def encode(image):
        seen.append(len(image))
        return image.flatten(1)[:, :5]

    def features(rows, key="weights"):
        return cached_features("t", rows, encode, key, View(), Preprocess((8, 8)), 4, 0)

    first = features(frame)
    assert sum(seen) == 6
    assert (
        torch.equal(features(frame.iloc[[4, 1]]), first[[4, 1]]) and sum(seen) == 6
    )  # another split or limit
    features(frame, "other weights")
    assert sum(seen) == 12
    for file in (tmp_path / "cache" / "features").glob("*/*.safetensors"):
        data = bytearray(file.read_bytes())
        data[-3] ^= 1  # one bit of a value
        file.write_bytes(data)
    assert torch.equal(features(frame), first) and sum(seen) == 18
    for file in (tmp_path / "cache" / "features").glob("*/*.safetensors"):
        file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(features(frame), first) and sum(seen) == 24
