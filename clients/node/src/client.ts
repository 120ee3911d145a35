import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ChannelOptions } from "@grpc/grpc-js";

import type { TlsOptions } from "./credentials.js";
import { GenerationService } from "./gen/tandem/v1/generation_service_pb.js";
import type { GenerateResponse, StreamGenerateResponse } from "./gen/tandem/v1/generation_service_pb.js";
import { ModelService } from "./gen/tandem/v1/model_service_pb.js";
import type { Model } from "./gen/tandem/v1/model_service_pb.js";
import type { GenerationSpecSchema } from "./gen/tandem/v1/types_pb.js";
import { Transport } from "./transport.js";
import type { CallOptions } from "./transport.js";

/** How a gateway is reached. */
export interface ClientOptions {
  /** Sent with every call. Over plain text whoever is on the way can read it. */
  apiKey?: string | undefined;
  /** Default: plain text. `{}` trusts the authorities that Node trusts. */
  tls?: TlsOptions | undefined;
  /** Options of the channel that take the place of this client's own, such as `grpc.service_config`. */
  channel?: ChannelOptions | undefined;
}

/** What to generate: `GenerationSpec` of the contract, of which only what is wanted need be given. */
export type GenerationSpecInit = MessageInitShape<typeof GenerationSpecSchema>;

/** One message of a stream, told apart by `case`: `started`, any number of `delta`, then exactly one `finished`. */
export type StreamEvent = Exclude<StreamGenerateResponse["event"], { case: undefined }>;

/** Calls of one gateway. They share a connection, which is made when first used and again whenever it breaks. */
export class Client {
  readonly #transport: Transport;

  /** Calls the gateway at `HOST:PORT` or `unix:/PATH`. */
  constructor(address: string, options: ClientOptions = {}) {
    this.#transport = new Transport(address, options);
  }

  /**
   * The text as it is made. A delta often holds several tokens.
   *
   * The call starts with the iteration; leaving the loop cancels it, and so does `signal`.
   *
   * @throws {TandemError} the text ended early, or never began.
   */
  async *stream(spec: GenerationSpecInit, options?: CallOptions): AsyncGenerator<StreamEvent, void, undefined> {
    for await (const { event } of this.#transport.serverStream(
      GenerationService.method.streamGenerate,
      { spec },
      options,
    )) {
      // What a newer gateway may add has no case here.
      if (event.case !== undefined) yield event;
    }
  }

  /**
   * The whole text at once.
   *
   * @throws {TandemError} there is none.
   */
  generate(spec: GenerationSpecInit, options?: CallOptions): Promise<GenerateResponse> {
    return this.#transport.unary(GenerationService.method.generate, { spec }, options);
  }

  /**
   * How many tokens the prompt of `spec` has.
   *
   * @throws {TandemError} the prompt was refused, or the gateway is not there.
   */
  async countTokens(spec: GenerationSpecInit, options?: CallOptions): Promise<number> {
    return (await this.#transport.unary(GenerationService.method.countTokens, { spec }, options)).numTokens;
  }

  /**
   * The models served.
   *
   * @throws {TandemError} nobody says.
   */
  async models(options?: CallOptions): Promise<Model[]> {
    return (await this.#transport.unary(ModelService.method.listModels, {}, options)).models;
  }

  /** Closes the connection. Calls that run end first. */
  close(): void {
    this.#transport.close();
  }
}
