"""``rali-zoo convert``: any trained scorer to one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rali_zoo.errors import ConfigError


def command(model: str, output: Path, precision: Literal["float32", "float16"] = "float32") -> None:
    """Write a scorer as one safetensors file, which needs nothing else to be loaded.

    Args:
        model: local-dir:FOLDER or hf-hub:ORG/REPO/FOLDER[@REV] of the released RALI, ckpt:PATH of a run, or
            anything else that 'rali-zoo score --model' takes.
        output: the file to write, .safetensors; load it with local-dir:PATH.
        precision: of the weights in the file; float16 halves it, and scores change in the third decimal.
    """
    if output.suffix != ".safetensors" or output.is_dir():
        raise ConfigError(f"--output={output}: give a file that ends in .safetensors")

    from rali_zoo.models.files import save_scorer
    from rali_zoo.zoo import load_ours

    scorer = load_ours(model)
    save_scorer(scorer.network, output, precision)
    count = sum(p.numel() for p in scorer.network.parameters())
    print(f"{output}: {type(scorer.network).__name__}, {count:,} parameters, revision {scorer.revision}")
    print(f"use it as --model local-dir:{output}")
