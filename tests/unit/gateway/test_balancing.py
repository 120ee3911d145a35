"""Which verifier a request goes to: by what it has to do, and by what it knows."""

from types import SimpleNamespace

import pytest

from tandem.gateway.balancing import TOLERATED_LEAD_TOKENS, choose
from tandem.gateway.ejection import FIRST_SECONDS, MAX_SECONDS, Ejection
from tandem.gateway.prefix_memory import BLOCK_TOKENS, MAX_BLOCKS, MAX_REMEMBERED, PrefixMemory, prefix_digests
from tandem.gateway.workload import MAX_EXPECTED_TOKENS, RequestWork, Workload
from tandem.internal.v1 import verifier_service_pb2 as pb
from tests.rpc.fake_verifier import started, verified

PROMPT = list(range(3 * BLOCK_TOKENS))


def candidate(address, load=0, prompts=()):
    prefixes = PrefixMemory()
    for prompt in prompts:
        prefixes.add(prefix_digests(prompt, ""))
    return SimpleNamespace(address=address, workload=SimpleNamespace(num_tokens=load), prefixes=prefixes)


def test_beginnings_are_named_by_block_and_salt():
    digests = prefix_digests(PROMPT, "")
    assert len(digests) == 3
    assert prefix_digests([*PROMPT[: 2 * BLOCK_TOKENS], 7], "") == digests[:2]
    assert not set(prefix_digests(PROMPT, "tenant")) & set(digests)
    assert not set(prefix_digests([1, *PROMPT[1:]], "")) & set(digests), "a block's name is also that of all before it"
    assert len(prefix_digests([5], "")) == 1, "a short prompt has a name as well"
    assert len(prefix_digests([5] * 100_000, "")) == MAX_BLOCKS


def test_a_memory_knows_the_longest_beginning_and_forgets_the_oldest():
    memory = PrefixMemory()
    memory.add(prefix_digests(PROMPT[: 2 * BLOCK_TOKENS], ""))
    assert memory.num_known_tokens(prefix_digests(PROMPT, "")) == 2 * BLOCK_TOKENS
    assert memory.num_known_tokens(prefix_digests(PROMPT, "tenant")) == 0
    for number in range(MAX_REMEMBERED - 1):
        memory.add([number.to_bytes(16, "little")])
    assert memory.num_known_tokens(prefix_digests(PROMPT, "")) == BLOCK_TOKENS, "the beginning of most stays longest"


@pytest.mark.parametrize(
    ("load", "chosen"), [(0, "knows"), (TOLERATED_LEAD_TOKENS, "knows"), (TOLERATED_LEAD_TOKENS + 1000, "idle")]
)
def test_who_knows_the_prompt_gets_it_unless_clearly_more_loaded(load, chosen):
    candidates = [candidate("idle"), candidate("knows", load, [PROMPT])]
    assert choose(candidates, prefix_digests([*PROMPT, 5], "")).address == chosen


def test_of_those_that_know_as_much_the_least_loaded_gets_it():
    candidates = [candidate("busy", 600, [PROMPT]), candidate("less busy", 500, [PROMPT]), candidate("stranger")]
    assert choose(candidates, prefix_digests(PROMPT, "")).address == "less busy"


def test_gateways_agree_and_prompts_are_spread():
    names = ["a", "b", "c"]
    prompts = [[number] * BLOCK_TOKENS for number in range(30)]
    chosen = [choose(list(map(candidate, names)), prefix_digests(prompt, "")).address for prompt in prompts]
    again = [choose(list(map(candidate, reversed(names))), prefix_digests(prompt, "")).address for prompt in prompts]
    assert chosen == again
    assert all(chosen.count(name) >= 4 for name in names)


async def test_a_workload_counts_what_is_still_to_come():
    workload = Workload()
    with workload.of(pb.GenerateRequest(prompt_token_ids=[1, 2, 3], max_tokens=10)) as work:
        assert workload.num_tokens == 13
        work.take(started())
        work.take(verified([5, 6]))
        assert workload.num_tokens == 8
        with workload.of(pb.GenerateRequest(prompt_token_ids=[1], output_token_ids=[2, 3], max_tokens=10)):
            assert workload.num_tokens == 8 + 3 + 8
    assert workload.num_tokens == 0
    assert RequestWork(5, 100_000).num_tokens == 5 + MAX_EXPECTED_TOKENS


def test_an_ejection_doubles_until_a_call_is_answered():
    now = 0.0
    ejection = Ejection(lambda: now)
    assert not ejection.is_in_force
    for seconds in (FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS):
        for _ in range(16):
            ejection.fail()  # streams that break together are one failure
        now += seconds - 0.01
        assert ejection.is_in_force
        now += 0.02
        assert not ejection.is_in_force
    for _ in range(20):
        ejection.fail()
        now += MAX_SECONDS
        assert not ejection.is_in_force
    ejection.fail()
    ejection.succeed()
    assert not ejection.is_in_force
    ejection.fail()
    now += FIRST_SECONDS
    assert not ejection.is_in_force
