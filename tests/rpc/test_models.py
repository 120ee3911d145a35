"""ModelService, health and reflection of a gateway."""

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tandem.v1 import generation_service_pb2, model_service_pb2, types_pb2
from tests.rpc.fake_verifier import MODEL

SERVING = health_pb2.HealthCheckResponse.SERVING


async def test_models_and_the_drafter_attached_now(client, fake):
    listed = await client.models.ListModels(model_service_pb2.ListModelsRequest())
    assert list(listed.models) == [MODEL]
    for name in ("", "tiny"):
        assert (await client.models.GetModel(model_service_pb2.GetModelRequest(name=name))).model == MODEL
    fake.model.ClearField("drafter")
    assert not (await client.models.GetModel(model_service_pb2.GetModelRequest())).model.HasField("drafter")


async def test_the_gateway_may_rename_the_model(open_client, verifier):
    async with open_client(model_name="gemma") as client:
        await client.wait_for_health(SERVING)
        assert (await client.models.ListModels(model_service_pb2.ListModelsRequest())).models[0].name == "gemma"
        spec = types_pb2.GenerationSpec(text="x", model="gemma")
        answer = await client.generation.Generate(generation_service_pb2.GenerateRequest(spec=spec))
        assert answer.started.model == "gemma"


async def test_health_and_reflection_name_the_public_services(open_client, verifier):
    services = ["tandem.v1.GenerationService", "tandem.v1.ModelService"]
    async with open_client(reflection=True) as client:
        await client.wait_for_health(SERVING)
        for name in ("", *services):
            assert (await client.health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
        await _reflects(client, services)


async def _reflects(client, services):
    call = reflection_pb2_grpc.ServerReflectionStub(client.channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in (await call.read()).list_services_response.service}
    await call.done_writing()
    assert names >= {*services, "grpc.health.v1.Health"} and "tandem.internal.v1.VerifierService" not in names
