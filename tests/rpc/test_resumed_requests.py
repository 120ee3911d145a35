"""A verifier that goes on with a text which another began: it writes what that one would have written."""

import math

import pytest

from tandem.rpc.errors import from_rpc_error
from tests.rpc.test_structured_output import pair, tokenizer  # noqa: F401
from tests.rpc.verifiers import greedy, refused, verifier

HOT = {"temperature": 3.0, "top_k": 0, "top_p": 1.0, "seed": 7}
PENALTIES = {"repetition_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": 1.0}
CASES = {
    "greedy": {},
    "sampled": {"sampling": HOT},
    # The prompt counts for one penalty and the output for all three, so it matters which of them a token is in.
    "penalties": {"sampling": HOT | PENALTIES},
    "greedy penalties": {"sampling": {"temperature": 0.0} | PENALTIES, "num_speculative_tokens": 0},
    "min_tokens": {"sampling": HOT, "min_tokens": 9, "stop_token_ids": range(2, 34), "max_tokens": 30},
    "logprobs": {"sampling": HOT, "top_logprobs": 3, "prompt_logprobs": True},
    "grammar": {"sampling": HOT, "output_format": {"regex": "[0-9]{4}-(yes|no)!{1,9}"}, "ignore_eos": False},
    "complete grammar": {"sampling": HOT, "output_format": {"regex": "[0-9]{4}-(yes|no)!"}},
}


async def answer(stub, **fields):
    """Token ids, log-probabilities and the end of a stream, which is whole."""
    responses = [r async for r in stub.Generate(greedy(**({"max_tokens": 24} | fields)))]
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds == ["started", *["round"] * (len(responses) - 2), "finished"]
    rounds = [response.round for response in responses[1:-1]]
    return (
        [token_id for one in rounds for token_id in one.token_ids],
        [about for one in rounds for about in one.logprobs],
        responses[0].started,
        responses[-1].finished,
    )


async def test_the_rest_of_a_text_is_the_same_wherever_it_is_cut(pair, tmp_path):  # noqa: F811
    async with verifier(pair, tmp_path) as (_, stub):
        for name, fields in CASES.items():
            ids, logprobs, _, end = await answer(stub, **fields)
            assert len(ids) > 5, name
            for cut in (1, len(ids) // 2, len(ids) - 1, len(ids)):
                rest, about, started, end_of_rest = await answer(stub, **fields, output_token_ids=ids[:cut])
                assert rest == ids[cut:], f"{name}, cut after {cut}"
                assert not started.prompt_logprobs and started.num_cached_tokens <= 6
                assert len(about) == len(logprobs[cut:])
                for one, other in zip(about, logprobs[cut:], strict=True):
                    assert math.isclose(one.logprob, other.logprob, abs_tol=1e-4)
                end_of_rest.ClearField("speculation")
                end.ClearField("speculation")
                assert end_of_rest == end, f"{name}, cut after {cut}"


@pytest.mark.parametrize(
    ("fields", "description"),
    [
        ({"output_token_ids": [9] * 13}, "ends before token 12"),
        ({"output_token_ids": [9, 33, 9], "stop_token_ids": [33]}, "ends before token 2"),
        ({"output_token_ids": [9999]}, "is not in"),
        ({"output_token_ids": [4], "output_format": {"regex": "[0-9]"}}, "ends before token 0"),
    ],
    ids=["too long", "behind a stop", "no token", "against the grammar"],
)
async def test_what_no_verifier_can_have_written_is_refused(pair, tmp_path, fields, description):  # noqa: F811
    async with verifier(pair, tmp_path) as (_, stub):
        error = from_rpc_error(await refused(stub.Generate(greedy(**fields))))
    assert error.field == "output_token_ids" and description in error.description
