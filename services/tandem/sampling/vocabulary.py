"""What each token of a checkpoint writes, for grammars."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from llguidance import LLTokenizer

from tandem.core.errors import ConfigError

FILE_NAME = "tokenizer.json"
BITS = 32  # of a word of a bit mask


class Vocabulary:
    """The bytes of all tokens, sorted for the grammar library, and which tokens may be part of a text.

    Special tokens write nothing: whatever a grammar says, none of them can be part of a text. They can only end it.
    """

    text: np.ndarray  # [W] int32, a bit a token: the tokens that write bytes and do not end a text
    library_end: np.ndarray  # [W] int32: the tokens by which the library says that a text may end

    def __init__(self, library: LLTokenizer, end_token_ids: Collection[int]) -> None:
        """Takes a tokenizer of the grammar library.

        Args:
            library: knows as many tokens as the target has logits.
            end_token_ids: the checkpoint's end tokens: never text, even where the tokenizer does not mark them.

        Raises:
            ConfigError: all tokens that end a text could be text as well.
        """
        self.library = library
        self.size: int = library.vocab_size
        special = [token_id for token_id in range(self.size) if library.is_special_token(token_id)]
        self.text = ~self.mask([*special, *end_token_ids])
        self.library_end = self.mask(set(library.eos_tokens) & set(special))
        if not self.library_end.any():
            raise ConfigError("no end token of the checkpoint is marked as special in its tokenizer")

    @classmethod
    def load(cls, folder: Path, size: int, end_token_ids: Collection[int]) -> "Vocabulary | None":
        """Reads the tokenizer of a checkpoint; None if it has none.

        Holds the interpreter for all that time (1.3 s for 262,144 tokens): not for a process that serves already.

        Args:
            folder: the checkpoint.
            size: logits of the target.
            end_token_ids: the checkpoint's end tokens.

        Raises:
            ConfigError: the file is damaged, has more tokens than the target, or no special one to end with.
        """
        file = folder / FILE_NAME
        if not file.is_file():
            return None
        try:
            library = LLTokenizer(str(file), n_vocab=size, eos_token=sorted(end_token_ids) or None)
        except Exception as error:  # the library raises nothing more specific
            raise ConfigError(f"{file}: grammars cannot use it: {error}") from None
        return cls(library, end_token_ids)

    def mask(self, token_ids: Collection[int]) -> np.ndarray:  # [W] int32
        """The bit mask of some tokens; ids outside the vocabulary are left out."""
        is_in = np.zeros(-(-self.size // BITS) * BITS, dtype=bool)
        is_in[[token_id for token_id in token_ids if 0 <= token_id < self.size]] = True
        return np.packbits(is_in, bitorder="little").view(np.int32)
