"""Conversations as token ids, by the checkpoint's own chat template."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tandem.core.errors import ConfigError, InvalidRequest
from tandem.gateway.conversation import FIELD, Chat, read_conversation
from tandem.gateway.plain_text import PlainText
from tandem.gateway.tokenizer import TextTokenizer, read_settings
from tandem.v1 import types_pb2

# Gemma's templates look back over the messages before each one: enough for 2,000 of them, and about a second of work.
MAX_RANGE_STEPS = 2_000_000


class TemplateRefusal(Exception):
    """The template's own `raise_exception`: its text is meant for the one who wrote the conversation."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Where a template can reach only what it is given, and change only its own variables."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As any sandbox, but without a search for danger where there is none.

        Loops of templates keep what they find in a namespace, whose attributes are the template's own variables. The
        search made such a loop ten times slower.
        """
        if type(obj) is Namespace and not attribute.startswith("_"):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: str, tokenizer: TextTokenizer, max_characters: int) -> None:
        """Compiles `source`.

        Args:
            source: a Jinja template.
            tokenizer: of the same checkpoint.
            max_characters: most that a rendered conversation may have.

        Raises:
            ConfigError: it is no Jinja template.
        """
        environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = _to_json
        try:
            self._template = environment.from_string(source)
            self._known = meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateError as error:
            raise ConfigError(f"the chat template does not compile: {error}") from None
        self._takes_calls = "tool_calls" in source and "tool_responses" in source
        self._tokenizer = tokenizer
        self._plain = PlainText(tokenizer.special_tokens)
        self._max_characters = max_characters

    @classmethod
    def load(cls, folder: Path, tokenizer: TextTokenizer, max_characters: int) -> "ChatTemplate | None":
        """Reads `chat_template.jinja`, or the template inside `tokenizer_config.json`; None when there is neither.

        Of several named templates it is the one named `default`.

        Raises:
            ConfigError: it is no Jinja template, or none of several is the default.
        """
        path = folder / "chat_template.jinja"
        source = path.read_text(encoding="utf-8") if path.is_file() else read_settings(folder).get("chat_template")
        if isinstance(source, list):
            named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
            source = named.get("default")
            if source is None:
                raise ConfigError(f"{folder / 'tokenizer_config.json'}: no chat template is named 'default'")
        return cls(source, tokenizer, max_characters) if isinstance(source, str) else None

    def encode(self, conversation: types_pb2.Conversation) -> list[int]:
        """Ids of a conversation, up to where the model's answer begins.

        Raises:
            InvalidRequest: the conversation is none, or the template does not accept it.
        """
        chat = read_conversation(conversation, self._plain.encode)
        self._check_known(chat)
        return self._encode_rendered(self._render(chat))

    def _check_known(self, chat: Chat) -> None:
        """Refuses what the template would leave out without a word."""
        if chat.tools and "tools" not in self._known:
            raise InvalidRequest(f"{FIELD}.tools", "this model's chat template knows no tools")
        if chat.thinking and "enable_thinking" not in self._known:
            raise InvalidRequest(f"{FIELD}.thinking", "this model's chat template knows no thinking")
        if not self._takes_calls and any("tool_calls" in message for message in chat.messages):
            raise InvalidRequest(f"{FIELD}.messages", "this model's chat template knows no tool calls")

    def _render(self, chat: Chat) -> str:
        variables: dict[str, Any] = {
            "messages": chat.messages,
            "tools": chat.tools or None,
            "bos_token": self._tokenizer.bos_token,
            "add_generation_prompt": True,
            "range": _bounded_range(),
        }
        if chat.thinking is not None:
            variables["enable_thinking"] = chat.thinking
        pieces, num_characters = [], 0
        try:
            for piece in self._template.generate(variables):
                pieces.append(piece)
                num_characters += len(piece)
                if num_characters > self._max_characters:
                    raise TemplateRefusal(f"it grows beyond {self._max_characters} characters")
        except TemplateRefusal as refusal:
            raise InvalidRequest(FIELD, f"refused by the model's chat template: {refusal}") from None
        except Exception:  # whatever a template's expressions may raise on input that its author did not foresee
            raise InvalidRequest(FIELD, "does not fit the model's chat template") from None
        return "".join(pieces)

    def _encode_rendered(self, rendered: str) -> list[int]:
        token_ids: list[int] = []
        start = 0
        for special in self._tokenizer.special_pattern.finditer(rendered):
            token_ids += self._encode_plain(rendered[start : special.start()])
            token_ids.append(self._tokenizer.special_tokens[special[0]])
            start = special.end()
        return token_ids + self._encode_plain(rendered[start:])

    def _encode_plain(self, text: str) -> list[int]:
        return self._tokenizer.encode(self._plain.decode(text)) if text else []


def _bounded_range() -> Callable[..., range]:
    """A `range` for one rendering: what all its loops do is bounded, however they are nested."""
    num_left = MAX_RANGE_STEPS

    def bounded(*arguments: int) -> range:
        nonlocal num_left
        steps = range(*arguments)
        num_left -= len(steps)
        if num_left < 0:
            raise TemplateRefusal("the conversation takes it too many steps")
        return steps

    return bounded


def _refuse(message: str) -> NoReturn:
    raise TemplateRefusal(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    """As checkpoints expect it; Jinja's own is for HTML and would write what is encoded as escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
