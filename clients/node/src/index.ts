/** Client of Tandem. The messages are those of `protos/tandem/v1`, as protobuf-es makes them. */
export { Client } from "./client.js";
export type { ClientOptions, GenerationSpecInit, StreamEvent } from "./client.js";
export type { TlsOptions } from "./credentials.js";
export { TandemError } from "./error.js";
export type { Code } from "./error.js";
export { SERVICE_CONFIG } from "./service_config.js";
export type { CallOptions } from "./transport.js";
export * from "./gen/tandem/v1/generation_service_pb.js";
export * from "./gen/tandem/v1/model_service_pb.js";
export * from "./gen/tandem/v1/types_pb.js";
