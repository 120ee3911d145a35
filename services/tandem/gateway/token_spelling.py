"""What one token is written as, by itself: for lists of likely tokens, which are no text."""

from collections.abc import Callable

from tokenizers import decoders

from tandem.gateway.detokenizer import byte_level_bytes
from tandem.gateway.tokenizer import TextTokenizer


class TokenSpelling:
    """Bytes of tokens, special ones by their names."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """Spells the tokens of `tokenizer`."""
        self._tokenizer = tokenizer
        is_byte_level = isinstance(tokenizer.library.decoder, decoders.ByteLevel)
        self._spell: Callable[[int], bytes] = self._byte_level if is_byte_level else self._decoded

    def bytes_of(self, token_id: int) -> bytes:
        """What a token adds to a text in UTF-8, which may be a part of a character."""
        if self.is_special(token_id):
            return self._name(token_id).encode()
        return self._spell(token_id)

    def is_special(self, token_id: int) -> bool:
        """Whether a token has no text of its own."""
        return token_id in self._tokenizer.special_token_ids

    def _byte_level(self, token_id: int) -> bytes:
        return byte_level_bytes(self._name(token_id))

    def _decoded(self, token_id: int) -> bytes:
        if token_id in self._tokenizer.byte_token_ids:
            return bytes([int(self._name(token_id)[3:5], 16)])  # <0x..>
        return self._tokenizer.decode([token_id]).encode()

    def _name(self, token_id: int) -> str:
        return self._tokenizer.library.id_to_token(token_id) or ""
