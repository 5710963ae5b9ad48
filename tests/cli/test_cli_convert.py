"""``rali-zoo convert`` on a scorer of ours; the released layout is tested with its loader."""

import pytest
import torch

import rali_zoo
from rali_zoo.cli.main import main
from rali_zoo.models.files import save_scorer
from rali_zoo.models.regression import RegressionNetwork


@pytest.fixture
def scorer(tmp_path):
    torch.manual_seed(0)
    return save_scorer(RegressionNetwork("rali:tiny"), tmp_path / "folder" / "model.safetensors")


def test_the_file_scores_as_what_it_was_made_of(scorer, tmp_path, photo, capsys):
    target = tmp_path / "new" / "scorer.safetensors"
    assert main(["convert", f"--model=local-dir:{scorer.parent}", f"--output={target}"]) == 0
    old, new = (rali_zoo.load_model(f"local-dir:{path}") for path in (scorer, target))
    assert new.score(photo())[0].score == old.score(photo())[0].score
    out = capsys.readouterr().out
    assert f"local-dir:{target}" in out and new.revision in out


@pytest.mark.parametrize(
    ("model", "output", "says"),
    [
        ("local-dir:{}", "scorer.pt", "ends in .safetensors"),
        ("local-dir:nowhere", "scorer.safetensors", "no scorer at nowhere"),
    ],
)
def test_errors_say_what_to_do_and_leave_nothing(scorer, tmp_path, capsys, model, output, says):
    target = tmp_path / output
    assert main(["convert", f"--model={model.format(scorer)}", f"--output={target}"]) == 1
    assert says in capsys.readouterr().err and not target.exists()
