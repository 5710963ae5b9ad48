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
from rali_zoo.errors import ConfigError, ScoreTableError
from rali_zoo.types import Preprocess
from rali_zoo.views import View


class Looker(L.LightningModule):
    """Keeps the batches it is shown."""

    encoder_is_frozen = False
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
    with pytest.raises(ConfigError, match=r"1 of 20 images left out.*max_unreadable = 1.0%"):
        run(IQADataModule(train=[two_sets[0]]))
    batches = run(IQADataModule(train=[two_sets[0]], max_unreadable=0.1))
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
    pytest.importorskip("webdataset", reason="pip install 'rali-zoo[stream]'")
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
    pytest.importorskip("webdataset", reason="pip install 'rali-zoo[stream]'")
    with pytest.raises(ScoreTableError, match=r"mos 300.0"):
        run(IQADataModule(train=[shards(tmp_path, photo, mos=300.0)], val=[two_sets[1]], test=[two_sets[1]]))
