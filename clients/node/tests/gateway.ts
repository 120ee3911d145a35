import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, DescMethod, MessageShape } from "@bufbuild/protobuf";
import { anyPack, DurationSchema } from "@bufbuild/protobuf/wkt";
import { Metadata, Server, ServerCredentials, status } from "@grpc/grpc-js";
import type { MethodDefinition, ServerUnaryCall, ServerWritableStream, sendUnaryData } from "@grpc/grpc-js";

import { ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "../src/gen/google/rpc/status_pb.js";
import { GenerationService } from "../src/index.js";
import type { GenerateRequest, GenerateResponse, StreamGenerateRequest, StreamGenerateResponse } from "../src/index.js";

/** What a test's gateway answers. */
export interface Script {
  generate?: (call: UnaryCall) => GenerateResponse;
  stream?: (call: StreamCall) => void;
}

type UnaryCall = ServerUnaryCall<GenerateRequest, GenerateResponse>;
type StreamCall = ServerWritableStream<StreamGenerateRequest, StreamGenerateResponse>;

/** Runs `use` with the address of a gateway that does as `script` says. */
export async function withGateway(script: Script, use: (address: string) => Promise<void>): Promise<void> {
  const server = new Server();
  const { generate, streamGenerate } = GenerationService.method;
  server.addService(
    { generate: definition(generate), streamGenerate: definition(streamGenerate) },
    {
      generate: (call: UnaryCall, reply: sendUnaryData<GenerateResponse>) => {
        try {
          reply(null, script.generate?.(call));
        } catch (error) {
          reply(error as Error, null);
        }
      },
      streamGenerate: (call: StreamCall) => script.stream?.(call),
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  try {
    await use(`127.0.0.1:${port}`);
  } finally {
    server.forceShutdown();
  }
}

/** A refusal as a loading gateway gives it, which asks to come back after `ms` milliseconds. */
export function loading(ms: number): object {
  const retryDelay = create(DurationSchema, { nanos: ms * 1_000_000 });
  const details = create(StatusSchema, {
    details: [
      anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "LOADING", domain: "tandem" })),
      anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })),
    ],
  });
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, details)));
  metadata.set("grpc-retry-pushback-ms", String(ms));
  return Object.assign(new Error("loading"), { code: status.UNAVAILABLE, details: "loading", metadata });
}

function definition<I extends DescMessage, O extends DescMessage>(
  method: DescMethod & { input: I; output: O },
): MethodDefinition<MessageShape<I>, MessageShape<O>> {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: false,
    responseStream: method.methodKind === "server_streaming",
    requestSerialize: (request) => Buffer.from(toBinary(method.input, request)),
    requestDeserialize: (bytes) => fromBinary(method.input, bytes),
    responseSerialize: (response) => Buffer.from(toBinary(method.output, response)),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
  };
}
