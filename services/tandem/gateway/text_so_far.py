"""A text on its way from verifiers to a client: what has come of it, so that another verifier can go on with it.

Same seed, same text: the noise at a position depends on the seed and the position alone. So a verifier that is given
the prompt and the tokens so far writes what the lost one would have written.
"""

import secrets

from tandem.core.sampling_params import SEED_RANGE
from tandem.internal.v1 import verifier_service_pb2


class TextSoFar:
    """The messages of one request, whichever verifier sends them."""

    def __init__(self, request: verifier_service_pb2.GenerateRequest) -> None:
        """Nothing has come yet. A request without a seed is given one, that of every verifier it goes to."""
        self._request = verifier_service_pb2.GenerateRequest()
        self._request.CopyFrom(request)
        if not request.sampling.HasField("seed"):
            self._request.sampling.seed = secrets.randbelow(SEED_RANGE)
        self.has_started = False

    @property
    def request(self) -> verifier_service_pb2.GenerateRequest:
        """What to ask a verifier for: the rest of the text. Not to be changed."""
        return self._request

    @property
    def num_tokens(self) -> int:
        """Tokens that have come."""
        return len(self._request.output_token_ids)

    def take(self, response: verifier_service_pb2.GenerateResponse) -> bool:
        """Takes a message in; False for one that the client has had, the beginning told anew by another verifier."""
        if response.HasField("started"):
            is_news = not self.has_started
            self.has_started = True
            self._request.prompt_logprobs = False
            return is_news
        self._request.output_token_ids.extend(response.round.token_ids)
        return True
