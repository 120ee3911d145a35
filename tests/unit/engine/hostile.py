"""Drafters that do what none should."""

import random

from tandem.engine.draft_source import DrafterInfo, Drafts, Fallback


class ScriptedDrafter:
    """Answers with what `answer(slots, num_tokens)` returns, or raises what it raises."""

    info = DrafterInfo("scripted", 7, "test")

    def __init__(self, answer):
        self.answer = answer
        self.num_rounds = 0

    def begin(self, wanted):
        self._asked = [one.slot for one in wanted], max(one.num_tokens for one in wanted)
        self.num_rounds += 1
        return True

    def collect(self):
        answer = self.answer(*self._asked)
        return answer if isinstance(answer, Drafts) else Drafts(answer)

    def close(self):
        pass


def random_tokens(vocabulary_size, seed=0):
    """Right in form, wrong in content."""
    rng = random.Random(seed)
    return lambda slots, k: [[rng.randrange(vocabulary_size) for _ in range(rng.randint(0, k))] for _ in slots]


def garbage(vocabulary_size, seed=0):
    """Anything that the engine could be handed: too many, too few, out of range, none at all."""
    rng = random.Random(seed)
    ids = [-1, -(2**40), vocabulary_size, 2**40, 0, 1]

    def answer(slots, k):
        match rng.randrange(5):
            case 0:
                return [[rng.choice(ids) for _ in range(k)] for _ in slots]
            case 1:
                return [[0] * (k + 1) for _ in slots]
            case 2:
                return [[0]] * (len(slots) + 1)
            case 3:
                return []
            case _:
                return Drafts([[] for _ in slots], Fallback.LATE)

    return answer
