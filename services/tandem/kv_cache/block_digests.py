"""Names for the content of KV blocks: equal names, equal tokens from position 0 on, equal salt."""

import struct
from collections.abc import Sequence
from hashlib import blake2b

DIGEST_BYTES = 32  # two contents with one name would be a text with another's beginning: that must not be findable


def extend_digests(digests: list[bytes], token_ids: Sequence[int], block_size: int, salt: str) -> None:
    """Appends the digests of those blocks of a sequence that are full and have none yet.

    A block's digest is that of its parent's digest and its own tokens, so it stands for everything before it; the first
    block's parent is the salt.

    Args:
        digests: of the first blocks; made of the same sequence, with the same size and salt.
        token_ids: of the sequence, from position 0 on.
        block_size: tokens a block.
        salt: equal for those who may share.
    """
    parent = digests[-1] if digests else _digest(salt.encode(), b"salt")
    block = struct.Struct(f"<{block_size}I")
    for end in range((len(digests) + 1) * block_size, len(token_ids) + 1, block_size):
        parent = _digest(parent + block.pack(*token_ids[end - block_size : end]), b"block")
        digests.append(parent)


def _digest(content: bytes, kind: bytes) -> bytes:
    """Kinds never meet: no salt can be chosen to look like a block."""
    return blake2b(content, digest_size=DIGEST_BYTES, person=kind).digest()
