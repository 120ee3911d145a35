"""Tiny tokenizers of the two kinds that Gemma-like checkpoints have, in checkpoint folders made on the spot."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tandem.gateway.tokenizer import TextTokenizer
from tandem.v1 import types_pb2

ROLES = {
    "system": types_pb2.ROLE_SYSTEM,
    "user": types_pb2.ROLE_USER,
    "model": types_pb2.ROLE_MODEL,
    "tool": types_pb2.ROLE_TOOL,
}

SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"]
# Those of Gemma 4 that tell the parts of a turn apart.
SPECIALS += ["<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>"]
SPECIALS += ['<|"|>', "<|think|>", "<|channel>", "<channel|>"]
CORPUS = [
    "def hello(world):\n    return world\n",
    "The quick brown fox jumps over the lazy dog. user model system ☃",
] * 20
TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'system' and not loop.first -%}{{- raise_exception('system comes first') -}}{%- endif -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{- '<|turn>' + role + '\\n' + message['content'] | trim + '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\\n' -}}{%- endif -%}
"""
# Lays conversations out as Gemma 4's templates do: thinking, tools, and calls and results inside one turn.
GEMMA_TEMPLATE = """\
{%- macro value(v) -%}
{%- if v is string -%}<|"|>{{ v }}<|"|>
{%- elif v is boolean -%}{{ 'true' if v else 'false' }}
{%- elif v is mapping -%}{{ '{' }}{{ entries(v) }}{{ '}' }}
{%- elif v is sequence -%}[{% for item in v %}{{ value(item) }}{{ ',' if not loop.last }}{% endfor %}]
{%- else -%}{{ v }}{%- endif -%}
{%- endmacro -%}
{%- macro entries(v) -%}
{%- for key, item in v | dictsort -%}{{ key }}:{{ value(item) }}{{ ',' if not loop.last }}{%- endfor -%}
{%- endmacro -%}
{{- bos_token -}}
{%- set state = namespace(rest=messages, is_open=false, last_user=-1) -%}
{%- if enable_thinking or tools or messages[0].role == 'system' -%}
{{- '<|turn>system\\n' -}}
{%- if enable_thinking -%}{{- '<|think|>\\n' -}}{%- endif -%}
{%- if messages[0].role == 'system' -%}
{{- messages[0].content | trim -}}
{%- set state.rest = messages[1:] -%}
{%- endif -%}
{%- for tool in tools or [] -%}
{%- set f = tool.function -%}
<|tool>declaration:{{ f.name }}{description:<|"|>{{ f.description }}<|"|>
{%- if f.parameters -%},parameters:{{ value(f.parameters) }}{%- endif -%}}<tool|>
{%- endfor -%}
{{- '<turn|>\\n' -}}
{%- endif -%}
{%- for message in state.rest -%}
{%- set is_model = message.role == 'assistant' -%}
{%- if not (is_model and state.is_open) -%}
{{- '<|turn>' + ('model' if is_model else message.role) + '\\n' -}}
{%- endif -%}
{%- if message.reasoning -%}{{- '<|channel>thought\\n' + message.reasoning + '\\n<channel|>' -}}{%- endif -%}
{%- for call in message.tool_calls or [] -%}
<|tool_call>call:{{ call.function.name }}{{ value(call.function.arguments) }}<tool_call|>
{%- endfor -%}
{%- for result in message.tool_responses or [] -%}
<|tool_response>response:{{ result.name }}
{%- if result.response is mapping -%}{{ value(result.response) }}
{%- else -%}{{ '{' }}value:{{ value(result.response) }}{{ '}' }}{%- endif -%}
<tool_response|>
{%- endfor -%}
{{- message.content | trim -}}
{%- set is_answered = message.tool_responses is defined and not message.content -%}
{%- set state.is_open = is_model and (loop.nextitem.role == 'assistant' if loop.nextitem else is_answered) -%}
{%- if not state.is_open -%}{{- '<turn|>\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if not state.is_open -%}{{- '<|turn>model\\n' -}}{%- endif -%}
{%- if state.is_open == (enable_thinking | default(false)) -%}
{{- '<|channel>thought\\n' + ('' if state.is_open else '<channel|>') -}}
{%- endif -%}
"""


def conversation(*turns, **fields):
    """A conversation of (role, text) pairs and whole messages."""
    messages = [
        turn if isinstance(turn, types_pb2.Message) else types_pb2.Message(role=ROLES[turn[0]], text=turn[1])
        for turn in turns
    ]
    return types_pb2.Conversation(messages=messages, **fields)


def byte_level_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("<中>", normalized=False)])  # an ordinary token that is no byte string
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return tokenizer


def byte_fallback_tokenizer():
    """As Gemma's: spaces become a visible character, and what the vocabulary lacks is spelled in byte tokens."""
    letters = sorted(set("".join(CORPUS).replace(" ", "▁")) | {"é"})
    words = ["he", "ll", "hell", "hello", "▁h", "th", "the", "▁w"]
    pieces = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, *(w for w in words if w not in pieces)])}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "h"), ("t", "h"), ("th", "e"), ("▁", "w")]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(SPECIALS)
    return tokenizer


def stripping_tokenizer():
    """As Llama's: the decoder takes a space off the first token of all."""
    tokenizer = byte_fallback_tokenizer()
    tokenizer.decoder = decoders.Sequence([tokenizer.decoder, decoders.Strip(" ", 1, 0)])
    return tokenizer


def save_checkpoint(folder, tokenizer, template=TEMPLATE):
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<bos>", "eos_token": "<eos>"}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


MAKERS = {"byte-level": byte_level_tokenizer, "byte-fallback": byte_fallback_tokenizer}


@pytest.fixture(scope="session", params=MAKERS)
def checkpoint(request, tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "target", MAKERS[request.param]())


@pytest.fixture(scope="session")
def tokenizer(checkpoint):
    return TextTokenizer.load(checkpoint)


@pytest.fixture(scope="session")
def whole(checkpoint):
    """The library's own view of the same tokenizer: special tokens act wherever they are written."""
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
