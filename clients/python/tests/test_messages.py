"""The types of this package say all that the contract does, and nothing else."""

import dataclasses

import pytest

from tandem_client import (
    Conversation,
    DefaultSampling,
    Delta,
    Drafter,
    Finished,
    FinishReason,
    Message,
    Model,
    Options,
    OutputPart,
    Role,
    Speculation,
    Started,
    Token,
    Tool,
    ToolCall,
    ToolResult,
    TopLogprob,
    Usage,
)
from tandem_client._proto.tandem.v1 import model_service_pb2, types_pb2
from tandem_client.options import make_spec

SAME = {
    Conversation: types_pb2.Conversation,
    DefaultSampling: model_service_pb2.DefaultSampling,
    Delta: types_pb2.Delta,
    Drafter: model_service_pb2.Drafter,
    Finished: types_pb2.Finished,
    Message: types_pb2.Message,
    Model: model_service_pb2.Model,
    Speculation: types_pb2.SpeculationStatistics,
    Started: types_pb2.Started,
    Token: types_pb2.Token,
    Tool: types_pb2.Tool,
    ToolCall: types_pb2.ToolCall,
    ToolResult: types_pb2.ToolResult,
    TopLogprob: types_pb2.TopLogprob,
    Usage: types_pb2.Usage,
}
PARTS = ("sampling", "stopping", "output", "speculation", "output_format")


@pytest.mark.parametrize("ours", SAME, ids=lambda ours: ours.__name__)
def test_each_value_has_the_fields_of_its_message(ours):
    names = {field.name.removeprefix("is_") for field in dataclasses.fields(ours)}
    assert names == set(SAME[ours].DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("ours", [Role, FinishReason, OutputPart])
def test_each_enum_has_the_values_of_its_own(ours):
    theirs = types_pb2.DESCRIPTOR.enum_types_by_name[ours.__name__]
    prefix = theirs.values[0].name.removesuffix("UNSPECIFIED")
    named = {value.name.removeprefix(prefix): value.number for value in theirs.values}
    assert {"UNSPECIFIED": 0, **ours.__members__} == named


def test_options_are_the_fields_of_a_spec():
    spec = types_pb2.GenerationSpec.DESCRIPTOR
    names = set(spec.fields_by_name) - {"text", "token_ids", "conversation"} - set(PARTS)
    names |= {name for part in PARTS for name in spec.fields_by_name[part].message_type.fields_by_name}
    assert names == Options.__annotations__.keys()


def test_options_go_where_they_belong():
    spec = make_spec("hello", model="m", temperature=0, stop="END", top_logprobs=3, regex="a+", logit_bias={5: -1.5})
    assert spec.text == "hello" and spec.model == "m" and spec.stopping.stop == ["END"]
    assert spec.sampling.HasField("temperature") and spec.sampling.temperature == 0
    assert spec.sampling.logit_bias[5] == -1.5 and not spec.sampling.HasField("top_p")
    assert spec.output.top_logprobs == 3 and spec.output_format.regex == "a+" and not spec.HasField("speculation")


def test_other_prompts():
    assert make_spec([1, 2]).token_ids.ids == [1, 2]
    turns = [
        Message(Role.USER, "What time is it?"),
        Message(Role.MODEL, thought="a clock", tool_calls=[ToolCall("now", "{}")]),
        Message(Role.TOOL, tool_results=[ToolResult("now", json='"noon"'), ToolResult("now", text="12")]),
    ]
    sent = make_spec(Conversation(turns, tools=[Tool("now", "Tells the time.")], thinking=True)).conversation
    user, model, tool = sent.messages
    assert (user.role, user.text) == (types_pb2.ROLE_USER, "What time is it?")
    assert model.thought == "a clock" and model.tool_calls[0].name == "now"
    assert [one.WhichOneof("result") for one in tool.tool_results] == ["json", "text"]
    assert sent.tools[0].description == "Tells the time." and sent.thinking


@pytest.mark.parametrize(
    ("options", "error"),
    [({"max_token": 1}, TypeError), ({"regex": "a", "grammar": "b"}, ValueError), ({"top_k": 2**40}, ValueError)],
)
def test_options_that_cannot_be_sent(options, error):
    with pytest.raises(error):
        make_spec("hello", **options)


def test_a_delta_with_all_there_is():
    sent = types_pb2.Delta(
        text="a",
        num_tokens=2,
        num_drafted_tokens=1,
        thought="b",
        tool_calls=[types_pb2.ToolCall(name="now", arguments_json="{}")],
        tokens=[
            types_pb2.Token(id=5, text="a", drafted=True, part=types_pb2.OUTPUT_PART_THOUGHT),
            types_pb2.Token(id=6, logprob=0, top_logprobs=[types_pb2.TopLogprob(id=7, logprob=-0.5)]),
        ],
    )
    thought = Token(5, "a", True, None, (), OutputPart.THOUGHT)
    text = Token(6, "", False, 0.0, (TopLogprob(7, -0.5),), OutputPart.UNSPECIFIED)
    assert Delta.from_proto(sent) == Delta("a", 2, 1, (thought, text), "b", (ToolCall("now", "{}"),))


def test_a_reason_of_the_future_is_no_error():
    finished = Finished.from_proto(types_pb2.Finished(reason=77, stop_token_id=0))
    assert finished.reason is FinishReason.UNSPECIFIED
    assert finished.stop_token_id == 0 and finished.stop_text is None
