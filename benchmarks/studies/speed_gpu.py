"""What only a GPU can show: encoders in bfloat16, a folder scored at full speed, GRPO of seven billion weights.

    python benchmarks/studies/speed_gpu.py [--only encoder folder grpo] [--quick]

writes ``benchmarks/results/speed_gpu.json``, as ``speed.py`` writes its own. It needs a GPU, and no weights
or data: weights are random, images are made. Time is by the clock. ``--quick`` runs anywhere.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import speed
import torch
from jsonargparse import get_loader
from PIL import Image
from speed import Row, compare, from_values
from torch import Tensor

from rali_zoo.data.sources import Item
from rali_zoo.models.rali import RALINetwork
from rali_zoo.models.scorer import NetworkScorer, overlapped
from rali_zoo.scoring.pipeline import Stages, make_stages, run, slices
from rali_zoo.scoring.runtime import Decode, decode_workers, tune

TARGET = speed.TARGET.with_name("speed_gpu.json")
#: The released RALI's encoder; weights do not matter for speed.
LARGE = "timm:vit_large_patch14_clip_quickgelu_336?pretrained=false"
SMALL = "timm:vit_tiny_patch16_224?pretrained=false&size=64"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH = 256
_YAML = get_loader("yaml")  # reads 1e-3 as the command line does


def wait() -> None:
    """Until the GPU has done what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def took(function: Callable[[], object]) -> float:
    """Seconds by the clock of a call and all that it gave the GPU to do."""
    wait()
    begun = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - begun


def in_turn(functions: dict[str, Callable[[], object]], rounds: int, warm: int = 2) -> dict[str, list[float]]:
    """Seconds of each function in each round, in alternating order, after some rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(-warm, rounds):
        for name in list(functions)[:: -1 if turn % 2 else 1]:
            seconds = took(functions[name])
            times[name] += [seconds] * (turn >= 0)
    return times


def rali(uri: str) -> RALINetwork:
    """A RALI of random weights with all its prototypes."""
    torch.manual_seed(0)
    network = RALINetwork(uri, projector="linear", embedding_dim=384, pca_dim=128)
    with torch.no_grad():
        for weights in (network.vectors, network.components):
            weights.normal_()
        network.scores.uniform_(1, 5)
    network.active.fill_(True)
    network.ready.fill_(True)
    network.prototype_texts = [["a text"] * 3] * len(network.active)
    return network


def operations(module: torch.nn.Module, image: Tensor) -> int:
    """Floating-point operations of a pass, a multiplication and an addition counting two."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    return counter.get_total_flops()


# ---- section: the network alone ----


@torch.inference_mode()
def encoder(quick: bool) -> Iterator[Row]:
    """Images a second of RALI with ViT-L/14 at 336 pixels, of images that are on the GPU already."""
    uri, batch, side = (SMALL, 8, 512) if quick else (LARGE, BATCH, 8192)
    scorers = {
        name: NetworkScorer(rali(uri), name, DEVICE) for name in ("float32", "bfloat16", "bfloat16, compiled")
    }
    for name, scorer in scorers.items():
        if name != "float32":
            tune(scorer, "auto", "default" if name.endswith("compiled") else "off")
    size = scorers["float32"].network.preprocess.size
    image = torch.rand(batch, 3, *size, device=DEVICE)
    work = operations(scorers["float32"].network, image[:1])
    half = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    one, two = (torch.randn(side, side, device=DEVICE, dtype=half) for _ in range(2))
    calls: dict[str, Callable[[], object]] = {
        name: lambda scorer=scorer: scorer._predict(image) for name, scorer in scorers.items()
    }
    times = in_turn({**calls, "product": lambda: one @ two}, 3 if quick else 7)
    peaks = [2 * side**3 / seconds for seconds in times.pop("product")]
    peak = statistics.median(peaks)
    scores = {name: scorer._predict(image).score for name, scorer in scorers.items()}
    title = "RALI, ViT-L/14-336, random"
    for name, found in times.items():
        rate = batch / statistics.median(found)
        note = (
            f"{rate:,.0f} images a second by {batch}, {work / 1e9:.0f} GFLOP each; a product of bfloat16 matrices of "
            f"{side} does {peak / 1e12:.0f} TFLOP/s, enough for {peak / work:,.0f} a second"
        )
        if name == "float32":
            apart = ""
        else:
            most = float((scores[name] - scores["float32"]).abs().max())
            apart = f"; a score is up to {most:.1g} from float32's"
        shares = [batch * work / seconds / p for seconds, p in zip(found, peaks, strict=True)]
        yield from_values(
            f"{title}: {name}", shares, "× the speed", None, note + apart, "",
            {"images_a_second": rate, "peak_flops": peak, "flops_an_image": work}, "its arithmetic alone",
        )  # fmt: skip
    for name, against in (("bfloat16", "float32"), ("bfloat16, compiled", "bfloat16")):
        yield compare(f"{title}: {name}", against, times[against], times[name], "× the speed", clock="wall")


# ---- section: a folder ----


class Photographs(torch.utils.data.Dataset[Tensor]):
    """What people write: Pillow, and torchvision's transforms."""

    def __init__(self, files: list[str], side: int) -> None:
        from torchvision import transforms as T  # noqa: N812

        self.files = files
        cubic = T.InterpolationMode.BICUBIC
        self.view = T.Compose([T.Resize(side, cubic), T.CenterCrop(side), T.ToTensor()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Tensor:
        image: Tensor = self.view(Image.open(self.files[row]).convert("RGB"))
        return image


_FEWER = 3  # the loop is slow: it gets a part of the images


def folder(quick: bool) -> Iterator[Row]:
    """Photographs from the disk to scores, against the network alone and against a loop with a DataLoader."""
    uri, batch, count = (SMALL, 8, 64) if quick else (LARGE, BATCH, 12 * BATCH)
    scorer = NetworkScorer(rali(uri), "random", DEVICE)
    tune(scorer, "auto", "off" if quick else "default")
    workers = decode_workers(None, torch.device(DEVICE))
    stages: dict[Decode, Stages] = {
        "fast": make_stages(scorer, "fast"),
        "exact": make_stages(scorer, "exact"),
    }
    with tempfile.TemporaryDirectory() as place:
        files = _linked(Path(place), count, 4 if quick else 16)
        calls: dict[str, Callable[[], object]] = {
            "alone": _alone(scorer, batch, count),
            **{mode: _scored(files, of, batch, workers) for mode, of in stages.items()},
            "loader": _by_hand(scorer, files[: count // _FEWER], batch),
        }
        times = in_turn(calls, 3, warm=1)
        times["loader"] = [_FEWER * seconds for seconds in times["loader"]]
        rates = {
            (mode, threads): _decoded(files[: batch if threads == 1 else count], of, batch, threads)
            for mode, of in stages.items()
            for threads in (1, workers)
        }
    seconds = {name: statistics.median(found) for name, found in times.items()}
    alone = count / seconds["alone"]
    against = {"alone": "the network alone", "loader": "a DataLoader of processes, Pillow, the same network"}
    for other, mode in itertools.product(against, stages):
        rate, single, many = count / seconds[mode], rates[mode, 1], rates[mode, workers]
        note = (
            f"{rate:,.0f} images a second; the network alone does {alone:,.0f}, the loop with a DataLoader of "
            f"{os.cpu_count()} processes {count / seconds['loader']:,.0f}; {workers} threads decode {many:,.0f} a "
            f"second and one {single:,.0f}, so the network alone is worth {alone / single:.0f} cores"
        )
        yield compare(
            f"`score` of {count:,} JPEGs of 1024x768, RALI with ViT-L/14-336, {mode}", against[other], times[other],
            times[mode], "× the speed", None, note, "wall",
            values={"images_a_second": rate, "decoded_by_one": single, f"decoded_by_{workers}": many},
        )  # fmt: skip


def _linked(place: Path, count: int, kinds: int) -> list[str]:
    """So many names of a few photographs."""
    for seed in range(kinds):
        (place / f"{seed}.jpg").write_bytes(speed.photograph(1024, 768, seed))
    files = [f"{place}/{i:06d}.jpg" for i in range(count)]
    for i, file in enumerate(files):
        os.link(place / f"{i % kinds}.jpg", file)
    return files


def _alone(scorer: NetworkScorer, batch: int, count: int) -> Callable[[], None]:
    """The network on images that are on its device already."""
    with torch.inference_mode():
        image = torch.rand(batch, 3, *scorer.network.preprocess.size, device=DEVICE)

    def score() -> None:
        with torch.inference_mode():
            for _ in range(count // batch):
                scorer._predict(image).score.tolist()

    return score


def _scored(files: list[str], stages: Stages, batch: int, workers: int) -> Callable[[], None]:
    """Ours: what ``rali-zoo score`` does between its list of images and its table."""

    def score() -> None:
        for _ in run(slices([(0, [Item(file) for file in files])], batch), stages, workers):
            pass

    return score


def _by_hand(scorer: NetworkScorer, files: list[str], batch: int) -> Callable[[], None]:
    """The loop that people write, its processes started before."""
    loader = torch.utils.data.DataLoader(
        Photographs(files, scorer.network.preprocess.size[0]), batch, pin_memory=DEVICE == "cuda",
        prefetch_factor=4, persistent_workers=True, num_workers=os.cpu_count() or 1,
    )  # fmt: skip

    def score() -> None:
        for image in loader:
            with torch.inference_mode():
                scorer._predict(image.to(DEVICE, non_blocking=True)).score.tolist()

    return score


def _decoded(files: list[str], stages: Stages, batch: int, threads: int) -> float:
    """Images a second that threads decode and cut, with nothing else to do."""
    items = [Item(file) for file in files]
    batches = (items[i : i + batch] for i in range(0, len(items), batch))
    return len(items) / took(lambda: [None for _ in overlapped(batches, stages.prepare, threads)])


# ---- section: reinforcement ----

#: Qwen2.5-VL-7B's own sizes, of its config.json.
SEVEN = {
    "text": {
        "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 128_000,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
        "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}  # fmt: skip
_SPECIAL = {
    "<|endoftext|>": "pad_token", "<|im_start|>": "start_token", "<|im_end|>": "eos_token", "<|vision_start|>": "",
    "<|vision_end|>": "", "<|image_pad|>": "image_token", "<|video_pad|>": "video_token",
}  # fmt: skip
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{% if p.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer(size: int) -> Any:
    """Words of our questions as single tokens, and as many others as the real one has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from rali_zoo.vlm.prompts import PROMPTS, prompt

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=list(_SPECIAL), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    made.train_from_iterator([prompt(name).text() for name in PROMPTS], trainer)
    state = json.loads(made.to_str())
    words = state["model"]["vocab"]
    words.update({f"filler{i}": i for i in range(len(words), size)})
    known = {name: token for token, name in _SPECIAL.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token=known["eos_token"],
        pad_token=known["pad_token"],
        extra_special_tokens={name: known[name] for name in ("image_token", "video_token", "start_token")},
    )  # fmt: skip


def build(place: Path, quick: bool) -> str:
    """Save a Qwen2.5-VL of random weights in bfloat16; its reference."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    text, vision = dict(SEVEN["text"]), dict(SEVEN["vision"])
    if quick:
        text |= {"num_hidden_layers": 1, "hidden_size": 256, "intermediate_size": 64, "vocab_size": 6000}
        text |= {"num_attention_heads": 2, "num_key_value_heads": 2}
        vision |= {
            "depth": 1,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 256,
        }
    words = _tokenizer(text["vocab_size"] - 399)  # the real one has 151,665 tokens
    text |= {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "bos_token_id": None}
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    ids = {f"{n.removesuffix('_pad')}_token_id": words.convert_tokens_to_ids(f"<|{n}|>") for n in names}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(DEVICE):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(place)
    Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(), words, Qwen2VLVideoProcessor(), chat_template=_TEMPLATE
    ).save_pretrained(place)
    return f"hf:local-dir:{place}"


def _rated(place: Path, quick: bool) -> str:
    """Reference of photographs of Q-Insight's size with made up scores."""
    place.mkdir()
    lines = ["image,mos,split"]
    for i in range(24):
        (place / f"{i}.jpg").write_bytes(speed.photograph(*((56, 56) if quick else (512, 384)), seed=i))
        lines.append(f"{i}.jpg,{1 + i / 6},train")
    (place / "scores.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"csv:{place}/scores.csv?mos_range=1,5"


def _memory() -> float:
    """GiB of the GPU at the highest, since this was last asked."""
    if DEVICE != "cuda":
        return 0.0
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return peak


def _free() -> None:
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    _memory()


def our_steps(vlm: str, images: int, steps: int, limit: int, data: str) -> dict[str, Any]:
    """Seconds of each step, of its sampling, tokens, and memory; the first step only warms up.

    As configs/reasoner/qinsight_qwen2_5_vl_7b.yaml says for one GPU, with TRL's config's adapter.
    """
    import lightning as L  # noqa: N812

    from rali_zoo.data.datamodule import IQADataModule
    from rali_zoo.trainers import Reasoner

    folder = speed.ROOT / "configs" / "reasoner"
    ours = _YAML((folder / "qinsight_qwen2_5_vl_7b.yaml").read_text())["model"]["init_args"]
    adapter = _YAML((folder / "trl_qinsight_qwen2_5_vl_7b.yaml").read_text())["tuning"]
    half = {"precision": "bfloat16" if DEVICE == "cuda" else "float32", "gradient_checkpointing": True}
    settings = {
        **ours, "vlm": vlm, "tuning": {**adapter, **half},
        "grpo": {**ours["grpo"], "max_completion_length": limit},
    }  # fmt: skip
    module = Reasoner(**settings)
    found: dict[str, Any] = {"step": [], "sampling": [], "tokens": []}
    sample = module.network.engine.generate

    def generate(*args: Any, **options: Any) -> Any:
        wait()
        begun = time.perf_counter()
        done = sample(*args, **options)
        wait()
        found["sampling"].append(time.perf_counter() - begun)
        found["tokens"].append(int(done.mask.sum()))
        found["prompt"] = done.prompts.length
        return done

    module.network.engine.generate = generate  # type: ignore[method-assign]

    class Clock(L.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            wait()
            self.begun = time.perf_counter()

        def on_train_batch_end(self, *args: Any) -> None:
            wait()
            found["step"].append(time.perf_counter() - self.begun)

    with tempfile.TemporaryDirectory() as place:
        trainer = L.Trainer(
            default_root_dir=place, accelerator="gpu" if DEVICE == "cuda" else "cpu", devices=1,
            precision="bf16-true" if DEVICE == "cuda" else "32-true", max_steps=steps + 1, limit_val_batches=0,
            num_sanity_val_steps=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[Clock()],
        )  # fmt: skip
        _memory()
        trainer.fit(module, IQADataModule(train=[data], batch_size=images))
    found["peak_gib"] = _memory()
    found["parameters"] = sum(p.numel() for p in module.parameters())
    return {name: value[1:] if isinstance(value, list) else value for name, value in found.items()}


def their_steps(vlm: str, images: int, steps: int, limit: int, data: str) -> dict[str, Any]:
    """As :func:`our_steps`, by TRL's trainer on the same questions and rewards."""
    from transformers import TrainerCallback

    from rali_zoo.data.datamodule import IQADataModule
    from rali_zoo.rl.rewards import RewardSet
    from rali_zoo.rl.trl import grpo_trainer, questions_table, trl_settings
    from rali_zoo.vlm.model import load_vlm
    from rali_zoo.vlm.questions import Tasks, ask_rows
    from rali_zoo.vlm.tuning import Tuning, prepare

    path = speed.ROOT / "configs" / "reasoner" / "trl_qinsight_qwen2_5_vl_7b.yaml"
    config = _YAML(path.read_text())
    given = {
        **config["grpo"], "max_completion_length": limit, "max_steps": steps + 1, "save_strategy": "no",
        "per_device_train_batch_size": images * config["grpo"]["num_generations"], "gradient_accumulation_steps": 1,
        "disable_tqdm": True, "use_cpu": DEVICE == "cpu", "bf16": DEVICE == "cuda",
    }  # fmt: skip
    steps_taken: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **options: Any) -> None:
            wait()
            self.begun = time.perf_counter()

        def on_step_end(self, *args: Any, **options: Any) -> None:
            wait()
            steps_taken.append(time.perf_counter() - self.begun)

    with tempfile.TemporaryDirectory() as place:
        settings = trl_settings(given, Path(place))
        module = IQADataModule(train=[data])
        tasks = Tasks(config["prompt"], config["degradation_prompt"], config["degradation_share"])
        rows, asked = ask_rows(tasks, {data: module.rows(data, "train")}, 0)
        precision = "bfloat16" if DEVICE == "cuda" else "float32"
        policy = prepare(
            load_vlm(vlm, True, precision), Tuning(**{**config["tuning"], "precision": precision})
        )
        rewards = RewardSet(config["rewards"], config["reward_options"])
        trainer = grpo_trainer(policy, rewards, questions_table(rows, asked), settings)
        trainer.add_callback(Clock())
        _memory()
        trainer.train()
    log = trainer.state.log_history
    lengths = [row["completions/mean_length"] for row in log if "completions/mean_length" in row]
    tokens = [length * images * config["grpo"]["num_generations"] for length in lengths]
    return {"step": steps_taken[1:], "tokens": tokens[1:], "peak_gib": _memory()}


def _about(found: dict[str, Any]) -> str:
    step, tokens = statistics.median(found["step"]), statistics.median(found["tokens"])
    said = (
        f"{tokens:,.0f} tokens in {step:.1f} s ({tokens / step:,.0f} a second), {found['peak_gib']:.1f} GiB"
    )
    if "sampling" in found:
        said += f", {statistics.median(found['sampling']) / step:.0%} of it sampling"
    return said


def grpo(quick: bool) -> Iterator[Row]:
    """Steps of GRPO with Qwen2.5-VL-7B of random weights and an adapter, eight answers an image."""
    steps, limit = (1, 8) if quick else (speed.LEAST_ROUNDS, 128)
    if quick and DEVICE == "cpu":
        torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as place:
        vlm, data = build(Path(place) / "model", quick), _rated(Path(place) / "data", quick)
        _free()
        ours = our_steps(vlm, 1, steps, limit, data)
        print(f"ours {_about(ours)}", file=sys.stderr, flush=True)
        _free()
        theirs = their_steps(vlm, 1, steps, limit, data)
        print(f"TRL's {_about(theirs)}", file=sys.stderr, flush=True)
        _free()
        four = our_steps(vlm, 4, max(1, steps - 1), limit, data)
    name = "a GRPO step of Qwen2.5-VL-7B, random, LoRA"

    def numbers(found: dict[str, Any]) -> dict[str, float]:
        rate = statistics.median(found["tokens"]) / statistics.median(found["step"])
        return {"tokens_a_second": rate, "peak_gib": found["peak_gib"]}

    note = (
        f"ours {_about(ours)}; TRL's {_about(theirs)}; an image of 512x384 and 8 answers of up to {limit} tokens, "
        f"prompts of {ours['prompt']}; {ours['parameters'] / 1e9:.2f} billion weights, bfloat16, gradient checkpointing"
    )
    speeds = [
        [t / s for t, s in zip(found["tokens"], found["step"], strict=True)] for found in (theirs, ours)
    ]
    per_token = [[1 / rate for rate in rates] for rates in speeds]
    yield compare(name, "TRL's trainer", *per_token, "× the speed", 0.9, note, "wall", values=numbers(ours))
    yield from_values(f"{name}, 4 images", four["step"], "s", None, _about(four), "", numbers(four))


if __name__ == "__main__":
    speed.main({"encoder": encoder, "folder": folder, "grpo": grpo}, TARGET)
