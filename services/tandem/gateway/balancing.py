"""Which of several verifiers a request goes to."""

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from tandem.gateway.prefix_memory import PrefixMemory
from tandem.gateway.workload import Workload

# A batch grows at little cost, so that a lead of some texts is no reason to compute a prompt again elsewhere.
TOLERATED_LEAD_TOKENS = 4096


class Candidate(Protocol):
    """A verifier that could take a request, such as a `VerifierLink`."""

    address: str
    workload: Workload
    prefixes: PrefixMemory


C = TypeVar("C", bound=Candidate)


def choose(candidates: Sequence[C], digests: Sequence[bytes]) -> C:
    """The verifier with the least to compute until a request is done, what it knows of its prompt left out.

    A clear lead in outstanding tokens counts against it in full, a small one only between those that know as much. Of
    verifiers that are alike in everything every gateway chooses the same (rendezvous hashing: Thaler, Ravishankar,
    "Using name-based mappings to increase hit rates", 1998), so that prompts which begin alike meet there.

    Args:
        candidates: at least one.
        digests: the prompt's `prefix_digests`.
    """
    loads = {candidate.address: candidate.workload.num_tokens for candidate in candidates}
    least = min(loads.values())

    def cost(candidate: C) -> tuple[int, int, bytes]:
        load = loads[candidate.address]
        lead = max(0, load - least - TOLERATED_LEAD_TOKENS)
        rank = hashlib.blake2b(digests[0] + candidate.address.encode(), digest_size=8).digest()
        return lead - candidate.prefixes.num_known_tokens(digests), load, rank

    return min(candidates, key=cost)
