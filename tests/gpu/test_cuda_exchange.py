"""An exchange on a GPU between two real processes: right values, in order, whatever becomes of the drafter."""

import multiprocessing
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from tandem.exchange.cuda_layout import cuda_layout_of
from tandem.exchange.offer import CudaOffer
from tests.gpu.round_drafter import expected, serve, work
from tests.unit.exchange.specs import SPEC

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NUM_ROUNDS = 100
K = SPEC.max_draft_tokens
SLOTS = list(range(SPEC.num_slots))
GENERATION = 7


@pytest.fixture
def exchange():
    from tandem.exchange.cuda_exchange import CudaExchange

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # CUDA need not know pages of a disk's files
        exchange = CudaExchange(SPEC, torch.device("cuda", 0), folder)
        exchange.renew(GENERATION)
        yield exchange
        exchange.close()


def offer(exchange, **changes):
    whole = CudaOffer(SPEC, GENERATION, exchange.handle, exchange.device_uuid, str(exchange.flags_path))
    return replace(whole, **changes)


@contextmanager
def drafter(offered, device_index=0, num_products=8):
    """A process that has answered the offer; yields it with the pipe to it and its answer."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, device_index, num_products))
    process.start()
    theirs.close()
    ours.send(offered)
    assert ours.poll(60)
    try:
        yield process, ours, ours.recv()
    finally:
        process.kill()
        process.join()


def ended_within(event, seconds):
    deadline = time.monotonic() + seconds
    while not event.query() and time.monotonic() < deadline:
        time.sleep(0.001)
    return event.query()


def play(exchange, pipe, num_rounds, first=1, is_waiting=True):
    """Rounds of which the host waits for none; how many of them the GPU saw right drafts in."""
    matrix = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    num_right = torch.zeros((), dtype=torch.int64, device="cuda")
    marks = []
    for number in range(first, first + num_rounds):
        work(matrix, 8)
        exchange.inputs.token_ids.copy_(exchange.inputs.token_ids * 5 % 1009 + number)
        exchange.post(number)
        pipe.send((number, SLOTS, K))
        if is_waiting:
            exchange.wait(number)
        num_right += (exchange.drafts == expected(exchange.inputs.token_ids, K)).all()
        marks.append(torch.cuda.Event())
        marks[-1].record()
        if len(marks) > 2:
            marks[-3].synchronize()  # two rounds ahead
        assert pipe.recv() == [K] * len(SLOTS)
    torch.cuda.synchronize()
    return int(num_right)


def test_every_round_reads_its_own_drafts(exchange):
    with drafter(offer(exchange)) as (_, pipe, answer):
        assert answer == "attached"
        assert play(exchange, pipe, NUM_ROUNDS) == NUM_ROUNDS
        pipe.send((0, [], 0))  # with which every stream begins
        assert pipe.recv() == []
        assert exchange.has_passed(NUM_ROUNDS) and not exchange.has_passed(NUM_ROUNDS + 1)
        assert exchange.read_drafts(NUM_ROUNDS, [2, 0], [K, 1]) == [
            tuple(expected(exchange.inputs.token_ids, K)[2].tolist()),
            (int(exchange.inputs.token_ids[0]) * 3,),
        ]


def test_without_the_wait_it_would_not(exchange):
    """Shows that the test above can fail."""
    with drafter(offer(exchange)) as (_, pipe, _):
        assert play(exchange, pipe, 20, is_waiting=False) < 20


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_drafter_on_another_gpu(exchange):
    with drafter(offer(exchange), device_index=1) as (_, pipe, answer):
        assert answer == "attached"
        assert play(exchange, pipe, NUM_ROUNDS) == NUM_ROUNDS


def test_round_numbers_pass_32_bits(exchange):
    with drafter(offer(exchange)) as (_, pipe, _):
        for number in (2**31 - 1, 2**32 - 5):  # the first is as far ahead as can be told from behind
            exchange.post(number)
            exchange.release(number)
        assert play(exchange, pipe, 20, first=2**32 - 4) == 20


def wait_for(exchange, number):
    """Lets the stream wait for a round; an event that comes behind."""
    exchange.post(number)
    exchange.wait(number)
    passed = torch.cuda.Event()
    passed.record()
    return passed


def test_a_killed_drafters_rounds_are_released_and_the_next_one_drafts(exchange):
    """And so again and again; the memory that each of them had open is not lost."""
    free = []
    for first in range(1, 10, 3):
        with drafter(offer(exchange), num_products=200) as (process, pipe, answer):
            assert answer == "attached"
            assert play(exchange, pipe, 1, first) == 1
            begun = wait_for(exchange, first + 1)
            pipe.send((first + 1, SLOTS, K))
            pipe.recv()
            process.kill()
            process.join()
        exchange.release(first + 1)  # a GPU may yet finish what a dead process had told it
        assert ended_within(begun, 2.0)
        unheard = wait_for(exchange, first + 2)
        assert not ended_within(unheard, 0.1), "there is nobody to write the flag"
        exchange.release(first + 2)
        assert ended_within(unheard, 2.0)
        free.append(torch.cuda.mem_get_info()[0])
    assert max(free) - min(free) < 8 << 20, free


def test_a_drafter_whose_verifier_is_silent_can_let_go(exchange):
    with drafter(offer(exchange)) as (_, pipe, _):
        pipe.send((1, SLOTS, K))  # of which the inputs never come
        assert pipe.poll(5) and pipe.recv() == [K] * len(SLOTS)
        pipe.send(None)
        assert pipe.poll(5) and pipe.recv() == "closed"


def test_what_does_not_fit_is_refused(exchange):
    refused = [
        ("a handle has 64 bytes", {"handle": b"short"}),
        ("cannot be opened here", {"handle": bytes(range(64))}),
        ("is not visible to the drafter", {"device_uuid": "no such"}),
        ("header", {"generation": GENERATION + 1}),
        ("header", {"spec": replace(SPEC, vocabulary_size=1 << 18)}),
        ("num_slots must be between", {"spec": replace(SPEC, num_slots=0)}),
        ("cannot open the file", {"flags_path": "/nowhere"}),
    ]
    with drafter(offer(exchange, handle=b"")) as (_, pipe, _):
        for reason, changes in refused:
            pipe.send(offer(exchange, **changes))
            assert pipe.poll(10) and reason in pipe.recv()
        pipe.send(offer(exchange))
        assert pipe.poll(10) and pipe.recv() == "attached"


def test_memory_smaller_than_it_is_said_to_be_is_refused(exchange, monkeypatch):
    larger = replace(SPEC, vocabulary_size=1 << 18)
    monkeypatch.setattr(exchange, "layout", cuda_layout_of(larger))
    exchange.renew(GENERATION)
    with drafter(offer(exchange, spec=larger)) as (_, _, answer):
        assert "has 2097152 bytes instead of 8388608" in answer
