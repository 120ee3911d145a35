"""From the bytes of a body to a request, or to a refusal that names the field and says what to do."""

from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tandem.gateway.http.errors import Refusal, bad_field
from tandem.gateway.http.request_fields import GenerationFields

# By the name of the field: what to do instead.
ADVICE = {
    "n": "send as many requests; a prompt they share is computed once",
    "best_of": "send several requests and choose among their answers",
    "echo": "put prompt and answer together yourself; gRPC gives the prompt's log-probabilities",
    "suffix": "text is only continued at its end",
    "store": "nothing is kept here",
    "functions": "send tools",
    "function_call": "send tool_choice",
    "tool_choice": "a call cannot be forced: send auto or none",
    "strict": "arguments are not confined to their schema: leave it out and check them",
    "parallel_tool_calls": "the model calls as many as it likes",
    "image_url": "only text is served",
    "input_audio": "only text is served",
    "file": "only text is served",
    "type": "only text parts and function tools are served",
    "audio": "only text is served",
    "modalities": "only text is served",
    "prediction": "drafts come from the server's own drafter",
    "web_search_options": "there is no web search here",
    "verbosity": "say in a message how long the answer should be",
    "prompt_logprobs": "gRPC gives the prompt's log-probabilities",
    "name": "write names into the content",
    "guided_json": "send response_format, or structured_outputs",
    "guided_regex": "send structured_outputs",
    "guided_grammar": "send structured_outputs",
    "guided_choice": "send structured_outputs with a regex",
    "num_speculative_tokens": "belongs into tandem",
}
_MESSAGES = {"extra_forbidden": "is not known here", "missing": "is required"}

Request = TypeVar("Request", bound=GenerationFields)


def read_request(kind: type[Request], body: bytes) -> Request:
    """The request that `body` spells.

    Raises:
        Refusal: it is none.
    """
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        # Of a value that may be of several types each says what it misses; who got deepest meant most.
        raise _refusal(max(details, key=lambda detail: len(_path(detail)))) from None
    return request.check()


def _refusal(detail: ErrorDetails) -> Refusal:
    if detail["type"] == "json_invalid":
        return bad_field(None, "the body is no valid JSON")
    path = _path(detail)
    message = _MESSAGES.get(detail["type"], detail["msg"].replace("Input should be", "must be"))
    names = [part for part in path if isinstance(part, str)]
    advice = ADVICE.get(names[-1]) if names else None
    return bad_field(_spelled(path) or None, f"{message}; {advice}" if advice else message)


def _path(detail: ErrorDetails) -> list[str | int]:
    """Where the value is; pydantic names the alternatives of a type in between."""
    return [part for part in detail["loc"] if isinstance(part, int) or not (part in _TYPES or "[" in part)]


_TYPES = frozenset({"str", "int", "float", "bool", "constrained-int", "constrained-str"})


def _spelled(path: list[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
