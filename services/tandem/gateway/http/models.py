"""The endpoints that say what is served."""

import time

from tandem.gateway.http.answer import Object
from tandem.gateway.http.call import HttpCall
from tandem.gateway.verifier_pool import VerifierPool
from tandem.v1 import model_service_pb2


class Models:
    """`GET /v1/models` and `GET /v1/models/{model}`."""

    def __init__(self, verifiers: VerifierPool) -> None:
        """Asks one of `verifiers` anew for every request, as `ModelService` does."""
        self._verifiers = verifiers
        self._created = int(time.time())

    async def list(self, call: HttpCall) -> None:
        """All models. Raises what `VerifierPool.describe` raises."""
        model = await self._verifiers.describe("")
        await call.send_json(200, {"object": "list", "data": [self._described(model)]})

    async def get(self, call: HttpCall) -> None:
        """The one that the path names. Raises what `VerifierPool.describe` raises."""
        model = await self._verifiers.describe(call.scope["path_params"]["model"])
        await call.send_json(200, self._described(model))

    def _described(self, model: model_service_pb2.Model) -> Object:
        drafter = model.drafter
        return {
            "id": model.name,
            "object": "model",
            "created": self._created,
            "owned_by": "tandem",
            "max_model_len": model.context_length,
            "tandem": {
                "dtype": model.dtype,
                "revision": model.revision,
                "vocabulary_size": model.vocabulary_size,
                "drafter": {
                    "name": drafter.name,
                    "revision": drafter.revision,
                    "num_speculative_tokens": drafter.num_speculative_tokens,
                }
                if model.HasField("drafter")
                else None,
            },
        }
