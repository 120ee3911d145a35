import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type {
  DescMessage,
  DescMethod,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";

import type { ClientOptions } from "./client.js";
import { channelCredentials, channelNames } from "./credentials.js";
import { asTandemError, cancelled } from "./error.js";
import { SERVICE_CONFIG } from "./service_config.js";

/** What one call may take. */
export interface CallOptions {
  /** Cancels the call, here and at the gateway, which frees what it held within a round. */
  signal?: AbortSignal | undefined;
  /** Milliseconds until the call fails with DEADLINE_EXCEEDED. The gateway knows them too. Default: no limit. */
  timeoutMs?: number | undefined;
}

// Log-probabilities of a whole prompt are larger than what gRPC takes by default.
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/** Calls of any method over one channel. */
export class Transport {
  readonly #client: grpc.Client;
  readonly #metadata = new grpc.Metadata();

  constructor(address: string, { apiKey, tls, channel }: ClientOptions) {
    this.#client = new grpc.Client(address, channelCredentials(tls), {
      "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.keepalive_time_ms": 30_000,
      "grpc.keepalive_timeout_ms": 10_000,
      ...channelNames(tls),
      ...channel,
    });
    if (apiKey !== undefined) this.#metadata.set("authorization", `Bearer ${apiKey}`);
  }

  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        ...wire(method),
        create(method.input, request),
        this.#metadata,
        deadline(options),
        (error, response) => {
          release();
          if (error !== null) reject(asTandemError(error));
          else resolve(response as MessageShape<O>);
        },
      );
      const release = onAbort(options.signal, () => call.cancel());
    });
  }

  async *serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    const call = this.#client.makeServerStreamRequest(
      ...wire(method),
      create(method.input, request),
      this.#metadata,
      deadline(options),
    );
    const release = onAbort(options.signal, () => {
      call.cancel();
      call.destroy(cancelled()); // what was received and not yet read is dropped
    });
    try {
      for await (const message of call) yield message as MessageShape<O>;
    } catch (error) {
      throw asTandemError(error);
    } finally {
      release();
      call.cancel();
    }
  }

  close(): void {
    this.#client.close();
  }
}

/** What grpc-js asks for about a method: its path, and how its messages are written and read. */
function wire<I extends DescMessage, O extends DescMessage>(
  method: DescMethod & { input: I; output: O },
): [string, (request: MessageShape<I>) => Buffer, (bytes: Buffer) => MessageShape<O>] {
  return [
    `/${method.parent.typeName}/${method.name}`,
    (request) => Buffer.from(toBinary(method.input, request)),
    (bytes) => fromBinary(method.output, bytes),
  ];
}

function deadline({ timeoutMs }: CallOptions): grpc.CallOptions {
  return timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
}

/** Calls `cancel` once `signal` is aborted, at once if it is already; until the function returned is called. */
function onAbort(signal: AbortSignal | undefined, cancel: () => void): () => void {
  if (signal?.aborted) cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  return () => signal?.removeEventListener("abort", cancel);
}
