"""`ModelService`: what is served."""

from typing import Any

import grpc

from tandem.gateway.verifier_pool import VerifierPool
from tandem.v1 import model_service_pb2, model_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Passes on what a verifier says of itself, under the name that clients use."""

    def __init__(self, verifiers: VerifierPool) -> None:
        """Asks one of `verifiers` anew for every request: the drafter may have come or gone."""
        self._verifiers = verifiers

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        """Raises what `VerifierPool.describe` raises."""
        return model_service_pb2.ListModelsResponse(models=[await self._verifiers.describe("")])

    async def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: Context
    ) -> model_service_pb2.GetModelResponse:
        """Raises what `VerifierPool.describe` raises."""
        return model_service_pb2.GetModelResponse(model=await self._verifiers.describe(request.name))
