"""What a server says of itself and of a prompt."""

from tandem_client import DefaultSampling, Drafter, Model
from tandem_client._proto.tandem.v1 import generation_service_pb2, model_service_pb2

SAMPLING = {"temperature": 0.5, "top_p": 0.25, "top_k": 64}
TARGET = {"name": "target", "context_length": 2048, "vocabulary_size": 4096, "dtype": "bfloat16", "revision": "abc"}
PROTO = model_service_pb2.Model(
    **TARGET,
    eos_token_ids=[1, 106],
    drafter={"name": "drafter", "num_speculative_tokens": 4, "revision": "def"},
    default_sampling=SAMPLING,
)
MODEL = Model(
    **TARGET,
    eos_token_ids=(1, 106),
    drafter=Drafter("drafter", 4, "def"),
    default_sampling=DefaultSampling(**SAMPLING),
)


def test_models(server, call):
    server.answers = [lambda _: model_service_pb2.ListModelsResponse(models=[PROTO, PROTO])]
    assert call("models") == (MODEL, MODEL)


def test_a_model_without_a_drafter(server, call):
    alone = model_service_pb2.Model(name="alone")
    server.answers = [lambda _: model_service_pb2.GetModelResponse(model=alone)]
    model = call("model", "alone")
    assert model.name == "alone" and model.drafter is None
    assert server.requests[0].name == "alone"


def test_count_tokens(server, call):
    server.answers = [lambda _: generation_service_pb2.CountTokensResponse(num_tokens=7)]
    assert call("count_tokens", "hello", model="m") == 7
    assert (server.requests[0].spec.text, server.requests[0].spec.model) == ("hello", "m")
