"""The checkpoint's tokenizer, with its special tokens out of reach of any text."""

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tandem.core.errors import ConfigError


class TextTokenizer:
    """Encodes text in which special tokens are plain text, and decodes ids without them."""

    def __init__(self, tokenizer: Tokenizer, bos_token: str) -> None:
        """Takes over `tokenizer`.

        Args:
            tokenizer: of the `tokenizers` library.
            bos_token: starts every text prompt.

        Raises:
            ConfigError: the tokenizer does not know its own `bos_token`.
        """
        bos_token_id = tokenizer.token_to_id(bos_token)
        if bos_token_id is None:
            raise ConfigError(f"tokenizer.json has no token {bos_token!r}")
        # A checkpoint may have been saved with the settings of its training.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # meaning: encode them as the text they are
        self.library = tokenizer
        self.bos_token = bos_token
        self.bos_token_id: int = bos_token_id
        added = tokenizer.get_added_tokens_decoder()
        self.special_tokens: dict[str, int] = {token.content: i for i, token in added.items() if token.special}
        self.special_token_ids = frozenset(self.special_tokens.values())
        self.byte_token_ids = self._byte_token_ids()
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        self.special_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @classmethod
    def load(cls, folder: Path) -> "TextTokenizer":
        """Reads `tokenizer.json` and `tokenizer_config.json`.

        Raises:
            ConfigError: a file is missing or not what it should be.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ConfigError(f"{path} does not exist")
        try:
            library = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise ConfigError(f"{path}: not a tokenizer: {error}") from None
        bos_token = read_settings(folder).get("bos_token")
        if isinstance(bos_token, dict):
            bos_token = bos_token.get("content")
        if not isinstance(bos_token, str):
            raise ConfigError(f"{folder / 'tokenizer_config.json'}: needs a bos_token")
        return cls(library, bos_token)

    def _byte_token_ids(self) -> frozenset[int]:
        """The tokens `<0x00>`..`<0xFF>`, where the decoder takes them as bytes; empty where it does not."""
        known = (self.library.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        ids = [token_id for token_id in known if token_id is not None]
        if len(ids) < 256 or self.library.decode([ids[0xC3], ids[0xA9]]) != "\u00e9":
            return frozenset()
        return frozenset(ids)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, nothing added. Other threads run meanwhile: only the batch call lets them."""
        ids: list[int] = self.library.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def decode(self, token_ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        text: str = self.library.decode(token_ids, skip_special_tokens=True)
        return text


def read_settings(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json`; empty when there is none.

    Raises:
        ConfigError: it is no JSON object.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: not a JSON object")
    return settings
