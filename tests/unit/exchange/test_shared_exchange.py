"""Both sides of an exchange in one process: what one writes the other reads, and what a hostile one breaks."""

import os
import stat
import struct
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tandem.core.errors import ExchangeError
from tandem.core.sampling_params import SamplingParams
from tandem.exchange import shared_exchange
from tandem.exchange.attached_exchange import AttachedExchange
from tandem.exchange.draft_inputs import NO_BLOCK, DraftInputs, private_inputs
from tandem.exchange.shared_exchange import SharedExchange
from tandem.exchange.spec import ExchangeSpec
from tests.unit.exchange.specs import SPEC, spec_with

GENERATION = 77
FULL = "full_attention"


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[SharedExchange]:
    exchange = SharedExchange(SPEC, tmp_path)
    exchange.renew(GENERATION)
    yield exchange
    exchange.close()


@pytest.fixture
def attached(exchange: SharedExchange) -> AttachedExchange:
    return attach(exchange)


def attach(exchange: SharedExchange, spec: ExchangeSpec = SPEC, generation: int = GENERATION) -> AttachedExchange:
    return AttachedExchange(spec, generation, str(exchange.target_path), str(exchange.drafts_path))


def tensors(inputs: DraftInputs) -> dict[str, torch.Tensor]:
    found = {name: value for name, value in vars(inputs).items() if isinstance(value, torch.Tensor)}
    for name in ("block_tables", "kv"):
        found |= {f"{name}/{group}": tensor for group, tensor in getattr(inputs, name).items()}
    return found


def test_what_the_verifier_writes_is_what_the_drafter_reads(exchange: SharedExchange) -> None:
    attached = attach(exchange)
    for number, tensor in enumerate(tensors(exchange.inputs).values(), 1):
        tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) + 1000 * number)
    theirs = tensors(attached.inputs)
    assert len(theirs) == 13
    for name, tensor in tensors(exchange.inputs).items():
        assert torch.equal(theirs[name], tensor), name


def test_the_methods_write_in_place(exchange: SharedExchange, attached: AttachedExchange) -> None:
    ours, theirs = exchange.inputs, attached.inputs
    ours.set_sampling(1, SamplingParams(temperature=0.5, top_k=4, top_p=0.9, min_p=0.1, seed=2**63 - 1))
    ours.set_blocks(1, FULL, 2, [5, 6])
    ours.advance(torch.tensor([1]), torch.tensor([8]), torch.tensor([13]), torch.full((1, 6), 2.5))
    assert [float(field[1]) for field in (theirs.temperature, theirs.top_p, theirs.min_p)] == [0.5, 0.9, 0.1]
    assert [int(field[1]) for field in (theirs.top_k, theirs.seeds)] == [4, 2**63 - 1]
    assert theirs.block_tables[FULL][1].tolist() == [NO_BLOCK, NO_BLOCK, 5, 6, NO_BLOCK, NO_BLOCK, NO_BLOCK]
    assert (int(theirs.token_ids[1]), int(theirs.positions[1]), float(theirs.hidden[1, 5])) == (8, 13, 2.5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_private_inputs_begin_as_shared_ones_do(tmp_path: Path, dtype: str) -> None:
    exchange = SharedExchange(spec_with(dtype=dtype), tmp_path)
    private = private_inputs(exchange.spec, exchange.inputs.kv, exchange.inputs.embedding)
    assert private.embedding is exchange.inputs.embedding and private.kv is exchange.inputs.kv
    shared = tensors(exchange.inputs)
    for name, tensor in tensors(private).items():
        assert torch.equal(tensor, shared[name]) and tensor.dtype == shared[name].dtype, name
    exchange.close()


def test_attaching_warns_of_nothing(exchange: SharedExchange) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(exchange)


def test_the_drafter_cannot_open_the_target_file_for_writing(exchange: SharedExchange) -> None:
    assert stat.S_IMODE(exchange.target_path.stat().st_mode) == 0o400
    assert stat.S_IMODE(exchange.drafts_path.stat().st_mode) == 0o600
    attached = attach(exchange)
    [line] = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if str(exchange.target_path) in line and "rw-s" not in line
    ]
    assert line.split()[1] == "r--s"
    attached.close()


def test_drafts_come_back_by_slot(exchange: SharedExchange, attached: AttachedExchange) -> None:
    attached.write_drafts(4, {2: [1, 2, 3, 4, 5], 0: [6]})
    assert exchange.read_drafts(GENERATION, 4, [2, 0], [5, 1]) == [(1, 2, 3, 4, 5), (6,)]
    assert exchange.read_drafts(GENERATION, 4, [0, 1, 2], [1, 0, 5]) == [(6,), (), (1, 2, 3, 4, 5)]
    attached.write_drafts(5, {2: [9]})
    assert exchange.read_drafts(GENERATION, 5, [2], [1]) == [(9,)]
    assert exchange.read_drafts(GENERATION, 4, [0], [1]) == [(6,)], "other slots stay as they were"
    attached.write_drafts(6, {})
    assert exchange.read_drafts(GENERATION, 6, [], []) == []


def test_drafts_of_another_round_attachment_or_count_are_none(
    exchange: SharedExchange, attached: AttachedExchange
) -> None:
    attached.write_drafts(4, {0: [1, 2], 1: [3, 4]})
    assert exchange.read_drafts(GENERATION, 4, [0, 1], [2, 2])
    assert exchange.read_drafts(GENERATION, 5, [0, 1], [2, 2]) is None
    assert exchange.read_drafts(GENERATION + 1, 4, [0, 1], [2, 2]) is None
    assert exchange.read_drafts(GENERATION, 4, [0, 1], [2, 1]) is None
    assert exchange.read_drafts(GENERATION, 4, [0, 2], [2, 2]) is None
    assert exchange.read_drafts(GENERATION, 4, [0], [6]) is None


@pytest.mark.parametrize("count", [6, 2**20, 2**32 - 1])
def test_a_record_that_claims_more_than_it_has_room_for(exchange: SharedExchange, count: int) -> None:
    header = struct.pack("<QQII", GENERATION, 4, count, 0)
    os.pwrite(os.open(exchange.drafts_path, os.O_RDWR), header, exchange.layout.record_offset(2))
    assert exchange.read_drafts(GENERATION, 4, [2], [count]) is None


@pytest.mark.parametrize("num_bytes", [0, 64, 100, 191])
def test_a_file_cut_off_is_no_drafts_and_mended_with_the_next_attachment(
    exchange: SharedExchange, attached: AttachedExchange, num_bytes: int
) -> None:
    attached.write_drafts(4, {0: [1], 1: [2]})
    os.truncate(exchange.drafts_path, num_bytes)
    assert exchange.read_drafts(GENERATION, 4, [0, 1], [1, 1]) is None
    exchange.renew(GENERATION + 1)
    again = attach(exchange, generation=GENERATION + 1)
    again.write_drafts(1, {1: [3]})
    assert exchange.read_drafts(GENERATION + 1, 1, [1], [1]) == [(3,)]


def test_an_old_attachments_drafts_are_not_the_new_ones(exchange: SharedExchange, attached: AttachedExchange) -> None:
    exchange.renew(GENERATION + 1)
    attached.write_drafts(1, {0: [1]})
    assert exchange.read_drafts(GENERATION + 1, 1, [0], [1]) is None


def test_only_this_attachment_can_be_opened(exchange: SharedExchange) -> None:
    for spec, generation in [
        (SPEC, GENERATION + 1),
        (spec_with(vocabulary_size=27), GENERATION),
        (spec_with(max_draft_tokens=11), GENERATION),
        (spec_with(hidden_size=-1), GENERATION),
    ]:
        with pytest.raises(ExchangeError):
            attach(exchange, spec, generation)
    with pytest.raises(ExchangeError):
        AttachedExchange(SPEC, GENERATION, str(exchange.drafts_path), str(exchange.target_path))
    os.pwrite(os.open(exchange.drafts_path, os.O_RDWR), b"?", 0)
    with pytest.raises(ExchangeError, match="header"):
        attach(exchange)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    num_open = len(os.listdir("/proc/self/fd"))
    exchange = SharedExchange(SPEC, tmp_path)
    exchange.renew(GENERATION)
    attached = attach(exchange)
    assert len(list(tmp_path.iterdir())) == 2
    exchange.close()
    assert not list(tmp_path.iterdir())
    attached.close()
    del exchange, attached
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert len(os.listdir("/proc/self/fd")) == num_open


def test_a_failed_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExchangeError):
        SharedExchange(replace(SPEC, block_size=0), tmp_path)
    create = shared_exchange.create

    def refuse(directory: Path, kind: str, num_bytes: int) -> tuple[Path, int]:
        if kind == "drafts":
            raise ExchangeError("full")
        return create(directory, kind, num_bytes)

    monkeypatch.setattr(shared_exchange, "create", refuse)
    with pytest.raises(ExchangeError, match="full"):
        SharedExchange(SPEC, tmp_path)
    assert not list(tmp_path.iterdir())
