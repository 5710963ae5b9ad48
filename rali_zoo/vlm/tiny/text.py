"""Tokenizer and chat template of our own tiny vision-language model, made from the words it will write."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rali_zoo.vlm.parsing import TAG
from rali_zoo.vlm.prompts import PROMPTS, VOCABULARIES, vocabulary, write_completion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IMAGE, PAD, END = "<image>", "<|pad|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
#: Tokens that a completion never holds; the one that ends it is not among them.
NEVER_WRITTEN = (IMAGE, PAD, SYSTEM, USER, ASSISTANT)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
#: Positions of the text model; the longest prompt with a description takes well under half.
MAX_LENGTH = 1024

#: One token a turn's head and one for its end; ``{% generation %}`` is for ``return_assistant_tokens_mask``.
CHAT_TEMPLATE = """
{%- macro body(content) -%}
  {%- if content is string -%}{{- content -}}
  {%- else -%}
    {%- for part in content -%}
      {%- if part.type == "image" -%}{{- "<image>" -}}{%- else -%}{{- part.text -}}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
  {{- "<|" + message.role + "|>" -}}
  {%- if message.role == "assistant" -%}
    {%- generation -%}{{- body(message.content) + "<|end|>" -}}{%- endgeneration -%}
  {%- else -%}{{- body(message.content) + "<|end|>" -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|assistant|>" -}}{%- endif -%}
""".strip()

# Enough that every word of the corpus is one token, with and without a space before it.
_VOCABULARY = 1536
# The prompts stand before every completion, so what they are made of should be whole words too.
_PROMPT_REPEATS = 200
_LABEL_SEEDS = 4
_WORD_REPEATS = 20


def corpus() -> Iterator[str]:
    """What the model reads and writes, tags and all: descriptions, answers, prompts."""
    from rali_zoo.data import phrases

    rng = random.Random(0)
    for text in _label_descriptions(rng):
        yield write_completion(text, rng.uniform(1, 5))
    for name in VOCABULARIES:
        words = vocabulary(name)
        for kind in words.classes:
            for level in range(1, len(words.levels) + 1):
                yield write_completion("", distortion=kind, level=level, words=words)
    for asked in PROMPTS.values():
        if asked.origin:  # younger than the shipped reasoner, whose vocabulary must stay as it is
            continue
        yield from [f"{asked.system}\n{asked.text()}"] * _PROMPT_REPEATS
    grades = [words for _, table in phrases.GRADES.values() for words in table]
    remarks = [words for _, _, words in phrases.REMARKS]
    for word in (word for words in [*grades, *remarks] for word in words):
        sentence = (
            f"{word[0].upper()}{word[1:]}. {word} edges, {word} contrast, {word} colours, {word} exposure."
        )
        yield from [sentence] * _WORD_REPEATS


def _label_descriptions(rng: random.Random) -> list[str]:
    import pandas as pd

    from rali_zoo.data.captioners import describe
    from rali_zoo.data.phrases import DISTORTIONS

    singles = [(kind, str(level)) for kind in DISTORTIONS for level in range(1, 6)]
    pairs = [
        (f"{first};{second}", f"{rng.randint(1, 5)};{rng.randint(1, 5)}")
        for first, second in zip(DISTORTIONS, reversed(DISTORTIONS), strict=True)
    ]
    rows = [*singles, *pairs, ("pristine", "0")]
    frame = pd.DataFrame(rows, columns=["distortion", "levels"])
    frame["id"], frame["split"] = [str(i) for i in range(len(frame))], "train"
    frame["mos"] = [rng.uniform(1, 5) for _ in rows]
    tables = [describe("labels", frame, "tokenizer", _LABEL_SEEDS, mos_words) for mos_words in (False, True)]
    return [text for table in tables for text in table["text"]]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of about 1,500 tokens trained on :func:`corpus`; any text can be written in it.

    Digits are single tokens, so that near scores share their first ones. The tags are one token each and
    survive ``skip_special_tokens``. Batches are padded on the left.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex("[0-9]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY - len(TAGS),
        special_tokens=[*NEVER_WRITTEN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((part for text in corpus() for part in _without_tags(text)), trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens={
            "image_token": IMAGE, "system_token": SYSTEM, "user_token": USER, "assistant_token": ASSISTANT
        },
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )  # fmt: skip


def _without_tags(text: str) -> list[str]:
    # a tag is one token whatever stands beside it, so no merge may reach over it
    return [part for part in TAG.sub("\0", text).split("\0") if part]
