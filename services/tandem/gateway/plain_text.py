"""Text of clients on its way through a chat template, in which special tokens are plain text.

The template may write special tokens; clients may not. So each character that a special token could begin with is
written in a code of two private-use characters, which templates pass on as they do letters, and is itself again once
the special tokens of the rendered text have been found. No special token can begin inside a client's text, nor one be
put together from two of them. The code's own first character is encoded too: nothing that a client writes is mistaken
for a code.
"""

import re
from collections.abc import Iterable

# Without case, and neither space nor punctuation: what templates do to text leaves them as they are.
_MARK = "\ue000"
_FIRST_CODE = 0xE001


class PlainText:
    """The code for one set of special tokens."""

    def __init__(self, special_tokens: Iterable[str]) -> None:
        """Encodes whatever begins one of `special_tokens`."""
        encoded = sorted({_MARK, *(token[0] for token in special_tokens)})
        self._codes = {character: chr(_FIRST_CODE + index) for index, character in enumerate(encoded)}
        self._characters = {code: character for character, code in self._codes.items()}
        self._to_encode = re.compile(f"[{re.escape(''.join(self._codes))}]")
        self._encoded = re.compile(f"{_MARK}([{''.join(self._characters)}])")

    def encode(self, text: str) -> str:
        """`text` as a template may be given it."""
        return self._to_encode.sub(lambda found: _MARK + self._codes[found[0]], text)

    def decode(self, text: str) -> str:
        """What was encoded, as it was written."""
        return self._encoded.sub(lambda found: self._characters[found[1]], text)
