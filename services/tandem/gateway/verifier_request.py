"""What a client asks for, as a request to the verifier.

Only what the verifier cannot know is checked here: text and limits of this gateway. It checks the rest itself, and its
refusals name the client's fields.
"""

from tandem.core.errors import InvalidRequest
from tandem.internal.v1 import verifier_service_pb2
from tandem.rpc.request_id import MAX_REQUEST_ID_CHARACTERS, current_request_id, is_valid_request_id
from tandem.v1 import types_pb2

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_CACHE_SALT_CHARACTERS = 128


def check_spec(spec: types_pb2.GenerationSpec, max_output_tokens: int) -> None:
    """Refuses what no verifier needs to see.

    Raises:
        InvalidRequest: a field is out of range.
    """
    if spec.request_id and not is_valid_request_id(spec.request_id):
        raise InvalidRequest("spec.request_id", f"must be at most {MAX_REQUEST_ID_CHARACTERS} printable characters")
    if len(spec.cache_salt) > MAX_CACHE_SALT_CHARACTERS:
        raise InvalidRequest("spec.cache_salt", f"must be at most {MAX_CACHE_SALT_CHARACTERS} characters")
    stopping = spec.stopping
    if len(stopping.stop) > MAX_STOPS:
        raise InvalidRequest("spec.stopping.stop", f"at most {MAX_STOPS} texts")
    for index, stop in enumerate(stopping.stop):
        if not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
            raise InvalidRequest(f"spec.stopping.stop[{index}]", f"must be 1..{MAX_STOP_CHARACTERS} characters")
    if stopping.HasField("max_tokens") and stopping.max_tokens > max_output_tokens:
        raise InvalidRequest("spec.stopping.max_tokens", f"must be at most {max_output_tokens}")


def verifier_request(
    spec: types_pb2.GenerationSpec, prompt_token_ids: list[int], max_output_tokens: int
) -> verifier_service_pb2.GenerateRequest:
    """The request to the verifier; fields that the client left out stay out, for the model's defaults."""
    stopping, output = spec.stopping, spec.output
    return verifier_service_pb2.GenerateRequest(
        request_id=current_request_id(),
        prompt_token_ids=prompt_token_ids,
        sampling=spec.sampling,
        max_tokens=stopping.max_tokens if stopping.HasField("max_tokens") else max_output_tokens,
        min_tokens=stopping.min_tokens,
        stop_token_ids=stopping.stop_token_ids,
        ignore_eos=stopping.ignore_eos,
        top_logprobs=output.top_logprobs if output.HasField("top_logprobs") else None,
        prompt_logprobs=output.prompt_logprobs,
        num_speculative_tokens=(
            spec.speculation.num_speculative_tokens if spec.speculation.HasField("num_speculative_tokens") else None
        ),
        cache_salt=spec.cache_salt,
        output_format=spec.output_format if spec.HasField("output_format") else None,
    )
