"""Tiny members of the families that the reasoner is meant for, saved with a complete processor."""

from __future__ import annotations

from pathlib import Path

import torch

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
]  # fmt: skip
IMAGE = {"qwen": "<|vision_start|><|image_pad|><|vision_end|>", "llava": "<|image_pad|>"}
TEMPLATE = """
{%- for message in messages -%}
{{- "<|im_start|>" + message.role + "\n" -}}
{%- for part in message.content -%}
{%- if part.type == "image" -%}{{- "IMAGE" -}}{%- else -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{{- "<|im_end|>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|im_start|>assistant\n" -}}{%- endif -%}
""".strip().replace("\n{%", "{%")
SIDE = 28


def tokenizer():
    """Bytes, and the special tokens of Qwen."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(SPECIAL) + 256, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        extra_special_tokens={
            "image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "start_token": "<|im_start|>"
        },
    )  # fmt: skip


def _text(kind: str, words) -> dict:
    options = {
        "vocab_size": len(words) + 5,  # as Qwen's, larger than the tokenizer
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": None,
        "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "initializer_range": 0.1,
    }  # fmt: skip
    if kind != "llava":
        options["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    if kind == "qwen3_vl":
        options["head_dim"] = 16
    return options


def _qwen(kind: str, words):
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    patch = 7
    vision = {
        "depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
        "patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    if kind == "qwen2_5_vl":
        vision |= {"fullatt_block_indexes": [0], "window_size": 28, "in_channels": 3}
    else:
        vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    ids = {
        f"{name}_token_id": words.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start",
                            "vision_end": "vision_end"}.items()
    }  # fmt: skip
    size = {"shortest_edge": SIDE * SIDE, "longest_edge": 4 * SIDE * SIDE}
    images = Qwen2VLImageProcessor(patch_size=patch, merge_size=2, size=size)
    template = TEMPLATE.replace("IMAGE", IMAGE["qwen"])
    if kind == "qwen2_5_vl":
        config = Qwen2_5_VLConfig(text_config=_text(kind, words), vision_config=vision, **ids)
        model = Qwen2_5_VLForConditionalGeneration(config)
        videos = Qwen2VLVideoProcessor(patch_size=patch, merge_size=2)
        return model, Qwen2_5_VLProcessor(images, words, videos, chat_template=template)
    config = Qwen3VLConfig(text_config=_text(kind, words), vision_config=vision, **ids)
    videos = Qwen3VLVideoProcessor(patch_size=patch, merge_size=2)
    return Qwen3VLForConditionalGeneration(config), Qwen3VLProcessor(
        images, words, videos, chat_template=template
    )


def _llava(words):
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaImageProcessor,
        LlavaProcessor,
    )

    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=14,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**_text("llava", words)), image_seq_length=4,
        image_token_index=words.convert_tokens_to_ids("<|image_pad|>"),
    )  # fmt: skip
    square = {"height": SIDE, "width": SIDE}
    images = LlavaImageProcessor(size=square, crop_size=square, do_center_crop=False)
    return LlavaForConditionalGeneration(config), LlavaProcessor(
        images, words, patch_size=14, num_additional_image_tokens=1, vision_feature_select_strategy="default",
        chat_template=TEMPLATE.replace("IMAGE", IMAGE["llava"]), image_token="<|image_pad|>",
    )  # fmt: skip


def build(kind: str, folder: Path) -> str:
    """Save a random model of a family; its reference."""
    torch.manual_seed(0)
    words = tokenizer()
    model, processor = _llava(words) if kind == "llava" else _qwen(kind, words)
    # what authors set for chatting; nothing of it may reach the sampler
    model.generation_config.update(
        eos_token_id=[words.eos_token_id, words.pad_token_id], pad_token_id=words.pad_token_id,
        do_sample=True, repetition_penalty=1.5, temperature=0.1, top_k=1,
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return f"hf:local-dir:{folder}"
