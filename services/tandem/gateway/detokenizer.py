"""Token ids to text, one at a time: what comes out is, all together, what decoding all ids at once would give."""

import codecs
from abc import ABC, abstractmethod

from tokenizers import decoders, pre_tokenizers

from tandem.gateway.tokenizer import TextTokenizer

REPLACEMENT = "\ufffd"


class Detokenizer(ABC):
    """Text of one sequence. Each token gets the text that it completes, as soon as that is certain."""

    @abstractmethod
    def push(self, token_id: int) -> list[str]:
        """Takes the next token; returns the texts of the tokens completed by it, oldest first.

        A token that ends inside a UTF-8 character is completed by a later one; special tokens have no text.
        """

    @abstractmethod
    def flush(self) -> list[str]:
        """Completes the tokens that still wait. What never became a character shows as U+FFFD."""


def detokenizer_for(tokenizer: TextTokenizer) -> Detokenizer:
    """A fresh detokenizer of the kind that fits the tokenizer's decoder."""
    if isinstance(tokenizer.library.decoder, decoders.ByteLevel):
        return ByteLevelDetokenizer(tokenizer)
    return WindowDetokenizer(tokenizer)


def _byte_alphabet() -> dict[str, int]:
    """Byte-level vocabularies write byte b as one printable character: itself, or from 256 on for the others."""
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    themselves = {chr(byte): byte for byte in range(256) if chr(byte) in alphabet}
    others = (byte for byte in range(256) if chr(byte) not in themselves)
    return themselves | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def byte_level_bytes(token: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary is written for."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:  # an added token, written as itself
        return token.encode()


class ByteLevelDetokenizer(Detokenizer):
    """For vocabularies of byte strings: tokens are bytes, and text is what they spell in UTF-8."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """Starts an empty text."""
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._num_waiting = 0
        self._waiting_text = ""

    def push(self, token_id: int) -> list[str]:
        """See `Detokenizer`."""
        self._waiting_text += self._utf8.decode(self._bytes(token_id))
        self._num_waiting += 1
        unfinished_character, _ = self._utf8.getstate()
        return [] if unfinished_character else self._complete()

    def flush(self) -> list[str]:
        """See `Detokenizer`."""
        self._waiting_text += self._utf8.decode(b"", final=True)
        return self._complete() if self._num_waiting else []

    def _complete(self) -> list[str]:
        texts = [""] * (self._num_waiting - 1) + [self._waiting_text]
        self._num_waiting, self._waiting_text = 0, ""
        return texts

    def _bytes(self, token_id: int) -> bytes:
        if token_id in self._tokenizer.special_token_ids:
            return b""
        # Models have more rows than tokenizers have tokens.
        return byte_level_bytes(self._tokenizer.library.id_to_token(token_id) or "")


class WindowDetokenizer(Detokenizer):
    """For any other decoder, Gemma's among them: decodes new tokens together with those before them.

    Vocabularies with byte fallback spell rare characters as a run of byte tokens, and their decoder takes a run as a
    whole: one byte that does not fit turns each of it into U+FFFD. So a run is only certain once it has ended.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """Starts an empty text."""
        self._tokenizer = tokenizer
        self._byte_token_ids = tokenizer.byte_token_ids
        self._context: list[int] = []  # completed last: decoders may treat the first token of all specially
        self._waiting: list[int] = []
        self._waits_in_run = False

    def push(self, token_id: int) -> list[str]:
        """See `Detokenizer`."""
        if token_id in self._byte_token_ids:
            self._waiting.append(token_id)
            self._waits_in_run = True
            return []
        if token_id in self._tokenizer.special_token_ids or self._tokenizer.library.id_to_token(token_id) is None:
            # The decoder never sees it: a run of bytes goes on behind it.
            self._waiting.append(token_id)
            return [] if len(self._waiting) > 1 else self._complete([""])
        run = self.flush() if self._waits_in_run else []
        self._waiting.append(token_id)
        text = self._waiting_text()
        if text.endswith(REPLACEMENT) and not self._byte_token_ids:
            # Without byte tokens only the text itself can show that a character is not finished.
            return run
        return run + self._complete([""] * (len(self._waiting) - 1) + [text])

    def flush(self) -> list[str]:
        """See `Detokenizer`."""
        if not self._waiting:
            return []
        text = self._waiting_text()
        return self._complete(self._run_texts(text) if self._waits_in_run else [""] * (len(self._waiting) - 1) + [text])

    def _run_texts(self, text: str) -> list[str]:
        """A run's text, each character at the token of its last byte; tokens other than bytes have none."""
        num_bytes = sum(token_id in self._byte_token_ids for token_id in self._waiting)
        if len(text.encode()) == num_bytes:
            of_bytes = [part for character in text for part in [""] * (len(character.encode()) - 1) + [character]]
        elif len(text) == num_bytes:
            of_bytes = list(text)  # one U+FFFD a byte
        else:
            of_bytes = [""] * (num_bytes - 1) + [text]  # the decoder took something off
        of_byte = iter(of_bytes)
        return [next(of_byte) if token_id in self._byte_token_ids else "" for token_id in self._waiting]

    def _waiting_text(self) -> str:
        known = len(self._tokenizer.decode(self._context))
        return self._tokenizer.decode(self._context + self._waiting)[known:]

    def _complete(self, texts: list[str]) -> list[str]:
        if any(texts):
            self._context = self._waiting
        elif not self._context:
            # Without text they may still have been the beginning.
            self._context = [i for i in self._waiting if i not in self._tokenizer.special_token_ids]
        self._waiting, self._waits_in_run = [], False
        return texts
