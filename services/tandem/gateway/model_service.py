"""`ModelService`: what is served."""

from typing import Any

import grpc

from tandem.gateway.verifier_link import VerifierLink
from tandem.v1 import model_service_pb2, model_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Passes on what the verifier says of itself, under the name that clients use."""

    def __init__(self, verifier: VerifierLink) -> None:
        """Asks `verifier` anew for every request: the drafter may have come or gone."""
        self._verifier = verifier

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        """Raises what `VerifierLink.describe` raises."""
        return model_service_pb2.ListModelsResponse(models=[await self._verifier.describe("")])

    async def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: Context
    ) -> model_service_pb2.GetModelResponse:
        """Raises what `VerifierLink.describe` raises."""
        return model_service_pb2.GetModelResponse(model=await self._verifier.describe(request.name))
