"""The tokenizer of the demo pair: byte-level BPE with Gemma's special tokens in the low ids."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy
import numpy.typing
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

PAD, EOS, BOS, UNK, TURN, END_OF_TURN = range(6)
SPECIAL_TOKENS = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>",
    "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<mask>",
)  # fmt: skip
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
CONTEXT = 4096  # tokens, as the target's max_position_embeddings


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE of `vocabulary` entries: every UTF-8 text round-trips, nothing is normalised."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", BOS)]
    )
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> numpy.typing.NDArray[numpy.uint16]:
    """Tokenise documents into one flat array, each as `<bos> text <eos>`; special names inside a text stay text."""
    parts: list[numpy.typing.NDArray[numpy.uint16]] = []
    plain = Tokenizer.from_str(_without_specials(tokenizer))
    for start in range(0, len(texts), 512):
        for encoding in plain.encode_batch(texts[start : start + 512], add_special_tokens=False):
            parts.append(numpy.array([BOS, *encoding.ids, EOS], dtype=numpy.uint16))
    return numpy.concatenate(parts)


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "extra_special_tokens": {"turn_token": "<|turn>", "end_of_turn_token": "<turn|>"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE)


def _without_specials(tokenizer: Tokenizer) -> str:
    """The tokenizer as JSON without its special tokens, so that `<eos>` in a source file is five characters."""
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []
    return json.dumps(content)


# Gemma 4's turns; the assistant's role is written `model`. The newline after the last `<turn|>` is the template's own.
_CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{%- if role not in ['system', 'developer', 'user', 'model'] -%}
{{- raise_exception('unknown role: ' + role) -}}
{%- endif -%}
{{- '<|turn>' + role + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] | trim -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{- part['text'] | trim -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|turn>model\\n' -}}
{%- endif -%}
"""
