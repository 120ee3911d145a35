"""The three kinds of prompt as token ids."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from tandem.core.errors import InvalidRequest
from tandem.gateway.chat_template import ChatTemplate
from tandem.gateway.conversation import FIELD, num_characters
from tandem.gateway.tokenizer import TextTokenizer
from tandem.v1 import types_pb2

# About a millisecond of encoding; whatever takes longer leaves the event loop.
MAX_INLINE_CHARACTERS = 4096
# Laying a conversation out costs as much as encoding a text of so many times its size, a message as much as its bytes.
LAYOUT_COST = 4
MESSAGE_BYTES = 64
# Messages and tools are framed, and characters that special tokens begin with are written as two.
MAX_GROWTH = 4


class PromptEncoder:
    """Encodes prompts and refuses those that are too large before work goes into them."""

    def __init__(self, tokenizer: TextTokenizer, template: ChatTemplate | None, max_characters: int) -> None:
        """Takes what `load` read; `template` None means that conversations are refused."""
        self.tokenizer = tokenizer
        self._template = template
        self._max_characters = max_characters

    @classmethod
    def load(cls, folder: Path, max_characters: int) -> "PromptEncoder":
        """Reads a checkpoint's tokenizer and chat template.

        Raises:
            ConfigError: a file is missing or not what it should be.
        """
        tokenizer = TextTokenizer.load(folder)
        template = ChatTemplate.load(folder, tokenizer, MAX_GROWTH * max_characters)
        return cls(tokenizer, template, max_characters)

    async def encode(self, spec: types_pb2.GenerationSpec, max_tokens: int | None = None) -> list[int]:
        """Token ids of the prompt.

        Args:
            spec: only its prompt is read.
            max_tokens: most tokens that it may have; None for any number.

        Raises:
            InvalidRequest: there is no prompt, or it is too long, or no conversation that this model understands.
        """
        match spec.WhichOneof("prompt"):
            case "text":
                field, token_ids = "spec.text", await self._encode_text(spec.text)
            case "token_ids":
                field, token_ids = "spec.token_ids", list(spec.token_ids.ids)
            case "conversation":
                field, token_ids = FIELD, await self._encode_conversation(spec.conversation)
            case _:
                raise InvalidRequest("spec.prompt", "needs one of text, token_ids and conversation")
        if not token_ids:
            raise InvalidRequest(field, "needs at least one token")
        if max_tokens is not None and len(token_ids) > max_tokens:
            raise InvalidRequest(field, f"has {len(token_ids)} tokens, {max_tokens} fit with room for one of output")
        return token_ids

    async def _encode_text(self, text: str) -> list[int]:
        self._check_size("spec.text", len(text))
        ids = await _run(len(text), lambda: self.tokenizer.encode(text))
        return [self.tokenizer.bos_token_id, *ids]

    async def _encode_conversation(self, conversation: types_pb2.Conversation) -> list[int]:
        template = self._template
        if template is None:
            raise InvalidRequest(FIELD, "this model has no chat template; send text or token_ids")

        def encode() -> list[int]:
            self._check_size(FIELD, num_characters(conversation))
            return template.encode(conversation)

        num_bytes = conversation.ByteSize() + MESSAGE_BYTES * len(conversation.messages)
        return await _run(LAYOUT_COST * num_bytes, encode)

    def _check_size(self, field: str, num_characters: int) -> None:
        if num_characters > self._max_characters:
            raise InvalidRequest(field, f"has {num_characters} characters, at most {self._max_characters} are taken")


async def _run(num_characters: int, encode: Callable[[], list[int]]) -> list[int]:
    return encode() if num_characters <= MAX_INLINE_CHARACTERS else await asyncio.to_thread(encode)
