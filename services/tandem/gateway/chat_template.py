"""Conversations as token ids, by the checkpoint's own chat template.

The template may write special tokens; messages may not. A special token inside a message is replaced by a random marker
that only this call knows, travels through the template as ordinary text, and is plain text again when encoded.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tandem.core.errors import ConfigError, InvalidRequest
from tandem.gateway.tokenizer import TextTokenizer, read_settings

FIELD = "spec.conversation"


@dataclass(frozen=True)
class Turn:
    """What one side said."""

    role: str  # system, user or assistant: the names that templates know
    text: str


class TemplateRefusal(Exception):
    """The template's own `raise_exception`: its text is meant for the one who wrote the conversation."""


class ChatTemplate:
    """A compiled template."""

    def __init__(self, source: str, tokenizer: TextTokenizer) -> None:
        """Compiles `source`.

        Raises:
            ConfigError: it is no Jinja template.
        """
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ConfigError(f"the chat template does not compile: {error}") from None
        self._tokenizer = tokenizer
        self._variables = {"bos_token": tokenizer.bos_token, "add_generation_prompt": True}

    @classmethod
    def load(cls, folder: Path, tokenizer: TextTokenizer) -> "ChatTemplate | None":
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
        return cls(source, tokenizer) if isinstance(source, str) else None

    def encode(self, turns: Sequence[Turn]) -> list[int]:
        """Ids of a conversation, up to where the model's answer begins.

        Raises:
            InvalidRequest: the template does not accept the conversation.
        """
        nonce = secrets.token_hex(8)
        markers = {f"\ue000{nonce}{number}\ue001": token for number, token in enumerate(self._tokenizer.special_tokens)}
        marker_of = {token: marker for marker, token in markers.items()}
        messages = [
            {
                "role": turn.role,
                "content": self._tokenizer.special_pattern.sub(lambda found: marker_of[found[0]], turn.text),
            }
            for turn in turns
        ]
        return self._encode_rendered(self._render(messages), re.compile(f"\ue000{nonce}[0-9]+\ue001"), markers)

    def _render(self, messages: list[dict[str, str]]) -> str:
        try:
            return self._template.render(messages=messages, **self._variables)
        except TemplateRefusal as refusal:
            raise InvalidRequest(FIELD, f"refused by the model's chat template: {refusal}") from None
        except Exception:  # whatever a template's expressions may raise on input that its author did not foresee
            raise InvalidRequest(FIELD, "does not fit the model's chat template") from None

    def _encode_rendered(self, rendered: str, marker: re.Pattern[str], markers: dict[str, str]) -> list[int]:
        token_ids: list[int] = []
        start = 0
        for special in self._tokenizer.special_pattern.finditer(rendered):
            token_ids += self._encode_plain(rendered[start : special.start()], marker, markers)
            token_ids.append(self._tokenizer.special_tokens[special[0]])
            start = special.end()
        return token_ids + self._encode_plain(rendered[start:], marker, markers)

    def _encode_plain(self, text: str, marker: re.Pattern[str], markers: dict[str, str]) -> list[int]:
        return self._tokenizer.encode(marker.sub(lambda found: markers[found[0]], text)) if text else []


def _refuse(message: str) -> NoReturn:
    raise TemplateRefusal(message)
