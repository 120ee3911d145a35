"""Random loads over the real round loop, scheduler and KV bookkeeping, with a network that only keeps accounts.

Every KV slot remembers whose it is: the salt, and all tokens up to its own. What a row reads must have been written for
its own sequence, or for one with the same salt and beginning.
"""

import random
from zlib import crc32

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tandem.core.sampling_params import OutputParams, SamplingParams, StoppingParams
from tandem.core.sequence import FinishReason, Sequence
from tandem.engine.draft_policy import FixedDrafts
from tandem.engine.draft_source import DrafterInfo, Drafts
from tandem.engine.limits import EngineLimits
from tandem.engine.round_loop import RoundLoop
from tandem.engine.scheduler import Scheduler
from tandem.engine.speculation import Speculation
from tandem.engine.step import Chosen
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.kv_allocator import KvAllocator, num_blocks_for
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics

BLOCK_SIZE = 4
SLIDING = KvGroup("sliding_attention", (0,), 1, 8, 6)
FULL = KvGroup("full_attention", (1,), 1, 8, None)
VOCABULARY = 3  # so few tokens that chance drafts are accepted and texts meet again
LONGEST_PROMPT = 30


def own_token(token_ids):
    """The network's choice after these tokens."""
    return crc32(bytes(token_ids)) % VOCABULARY


class WatchedAllocator(KvAllocator):
    """Notices when a sliding group runs out before the full one does."""

    def reserve(self, sequence_id, num_tokens):
        tables = self._tables[sequence_id]
        runs_out = {name: table.num_missing(num_tokens) > self.pools[name].num_free for name, table in tables.items()}
        assert runs_out[SLIDING.name] <= runs_out[FULL.name]
        return super().reserve(sequence_id, num_tokens)


class Accounts:
    """A `Runner` that writes down what every KV slot was computed from, and looks before it chooses."""

    vocabulary_size = VOCABULARY

    def __init__(self, kv):
        self._kv = kv
        self._written = {SLIDING: {}, FULL: {}}  # slot -> (salt, tokens up to its own)
        self._entered = {}

    def enter(self, sequence, slot):
        assert sequence.num_computed_tokens == 0 or not sequence.needs_prompt_rows
        self._entered[slot] = sequence

    def run(self, step):
        for scheduled in step:
            assert self._entered[scheduled.slot] is scheduled.sequence
            self._account(scheduled, self._write)
        for scheduled in step:
            self._account(scheduled, self._read)
        return [self._choose(scheduled) if scheduled.is_chosen_from else None for scheduled in step], [[]] * len(step)

    def _account(self, scheduled, what):
        sequence = scheduled.sequence
        token_ids = [*sequence.committed[: scheduled.start], *scheduled.token_ids]
        for group in self._written:
            block_ids = self._kv.block_ids(sequence.sequence_id, group.name)
            for position in range(scheduled.start, scheduled.start + scheduled.num_rows):
                what(group, block_ids, position, lambda key: (sequence.cache_salt, tuple(token_ids[: key + 1])))

    def _write(self, group, block_ids, position, content):
        assert self._kv.pools[group.name].is_private(block_ids[position // BLOCK_SIZE])
        self._written[group][self._slot(block_ids, position)] = content(position)

    def _read(self, group, block_ids, position, content):
        for key in range(max(0, position - group.window + 1) if group.window else 0, position + 1):
            assert self._written[group][self._slot(block_ids, key)] == content(key)

    def _slot(self, block_ids, position):
        assert block_ids[position // BLOCK_SIZE] >= 0, "a released block"
        return block_ids[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE

    def _choose(self, scheduled):
        token_ids, num_accepted = list(scheduled.sequence.committed), 0
        own = [own_token(token_ids)]
        for draft in scheduled.draft_token_ids:
            if draft != own[-1]:
                break
            num_accepted += 1
            token_ids.append(draft)
            own.append(own_token(token_ids))
        return Chosen(own, num_accepted, [])


class ChanceDrafter:
    """Drafts that are right more often than not."""

    info = DrafterInfo("chance", 4, "test")

    def __init__(self, seed):
        self._rng = random.Random(seed)

    def begin(self, wanted):
        self._drafts = [self._draft(list(one.token_ids), one.num_tokens) for one in wanted]
        return True

    def collect(self):
        return Drafts(self._drafts)

    def _draft(self, token_ids, num_tokens):
        drafts = []
        for _ in range(num_tokens):
            drafts.append(own_token(token_ids + drafts) if self._rng.random() < 0.7 else self._rng.randrange(3))
        return drafts


class SharedBlocks(RuleBasedStateMachine):
    @initialize(
        num_blocks=st.integers(4, 32),
        max_sequences=st.integers(1, 4),
        max_step_tokens=st.integers(5, 14),
        seed=st.integers(0, 99),
    )
    def start(self, num_blocks, max_sequences, max_step_tokens, seed):
        kv_tokens = num_blocks * BLOCK_SIZE
        limits = EngineLimits(max_sequences, max_step_tokens, 4, 100, 100, kv_tokens, BLOCK_SIZE)
        sizes = num_blocks_for((SLIDING, FULL), kv_tokens, BLOCK_SIZE, max_sequences, max_step_tokens)
        self.kv = WatchedAllocator((SLIDING, FULL), sizes, BLOCK_SIZE)
        self.scheduler = Scheduler(limits, self.kv)
        metrics = Metrics()
        speculation = Speculation([ChanceDrafter(seed)], FixedDrafts(), self.scheduler, VOCABULARY, metrics)
        self.rounds = RoundLoop(self.scheduler, Accounts(self.kv), self.kv, speculation, metrics)
        self.everyone = []

    @rule(
        earlier=st.integers(0, 50),
        cut=st.integers(0, 40),
        rest=st.lists(st.integers(0, VOCABULARY - 1), max_size=8),
        max_tokens=st.integers(1, 14),
        salt=st.sampled_from(["", "", "", "a"]),
        wants_prompt_rows=st.sampled_from([False, False, False, True]),
    )
    def add(self, earlier, cut, rest, max_tokens, salt, wants_prompt_rows):
        """A prompt that goes on from an earlier text, cut anywhere, or from none."""
        before = self.everyone[earlier].committed[:cut] if earlier < len(self.everyone) else []
        prompt = tuple([*before, *rest][:LONGEST_PROMPT]) or (0,)
        if self.kv.can_ever_hold(len(prompt) + max_tokens - 1):
            output = OutputParams(prompt_logprobs=wants_prompt_rows)
            stopping = StoppingParams(max_tokens)
            sequence = Sequence(len(self.everyone), prompt, SamplingParams(), stopping, output, 4, None, salt)
            self.everyone.append(sequence)
            self.scheduler.add(sequence)

    @rule(count=st.integers(1, 6))
    def advance(self, count):
        for _ in range(count):
            self.rounds.run_round([])

    @rule(index=st.integers(0, 3))
    def cancel(self, index):
        if index < len(self.scheduler.sequences):
            self.rounds.end(self.scheduler.sequences[index], FinishReason.CANCELLED)

    @rule(index=st.integers(0, 3))
    def preempt(self, index):
        if index < self.scheduler.num_running:
            self.scheduler.preempt(self.scheduler.sequences[index])

    @invariant()
    def is_whole(self):
        if hasattr(self, "scheduler"):
            self.scheduler.check_integrity()

    def teardown(self):
        if not hasattr(self, "scheduler"):
            return
        while self.scheduler.sequences:
            self.rounds.run_round([])
        assert self.kv.usage == 0.0
        for sequence in self.everyone:
            for place in range(sequence.num_prompt_tokens, len(sequence.committed)):
                assert sequence.committed[place] == own_token(sequence.committed[:place])
            assert sequence.finish_reason is FinishReason.CANCELLED or sequence.num_tokens_left == 0
        assert self.rounds.metrics.value(names.CACHED_TOKENS) == sum(s.num_cached_tokens or 0 for s in self.everyone)


SharedBlocks.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # to shrink a failure takes minutes; its steps are printed as they are
)
TestSharedBlocks = SharedBlocks.TestCase


def test_the_load_is_worth_its_name():
    """Without this, a machine that never shares, evicts or preempts would pass, too."""
    machine, rng = SharedBlocks(), random.Random(0)
    machine.start(num_blocks=12, max_sequences=4, max_step_tokens=8, seed=0)
    for _ in range(60):
        machine.add(rng.randrange(50), rng.randrange(40), [rng.randrange(3)] * rng.randrange(8), 14, "", False)
        machine.advance(3)
        machine.is_whole()
    machine.teardown()
    counts = machine.rounds.metrics
    for metric in (names.CACHED_TOKENS, names.KV_EVICTIONS, names.PREEMPTIONS, names.SPEC_ACCEPTED_TOKENS):
        assert counts.value(metric) > 4
