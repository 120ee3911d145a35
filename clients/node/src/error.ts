import { fromBinary } from "@bufbuild/protobuf";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import type { Any } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import type { Metadata, ServiceError } from "@grpc/grpc-js";

import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
  StatusSchema,
} from "./gen/google/rpc/status_pb.js";

/** Name of a gRPC status code, such as `INVALID_ARGUMENT`. */
export type Code = keyof typeof status;

/** A call that was refused, failed, was cancelled, or took too long. */
export class TandemError extends Error {
  override readonly name = "TandemError";
  /** Why, for programs: `INVALID_REQUEST`, `QUEUE_FULL`, and so on. Not set when no gateway said it. */
  readonly reason: string | undefined;
  /** Who gave the reason: `tandem`. */
  readonly domain: string | undefined;
  /** Path of the field that was refused, such as `spec.sampling.temperature`. */
  readonly field: string | undefined;
  /** What is wrong with that field. */
  readonly description: string | undefined;
  /** Milliseconds after which it is worth asking again. */
  readonly retryAfterMs: number | undefined;
  /** What to look for in the gateway's log after an INTERNAL error. */
  readonly requestId: string | undefined;

  constructor(
    message: string,
    readonly code: Code,
    details: readonly Any[] = [],
    options?: ErrorOptions,
  ) {
    super(message, options);
    const info = find(details, ErrorInfoSchema);
    this.reason = info?.reason;
    this.domain = info?.domain;
    const violation = find(details, BadRequestSchema)?.fieldViolations[0];
    this.field = violation?.field;
    this.description = violation?.description;
    const delay = find(details, RetryInfoSchema)?.retryDelay;
    this.retryAfterMs = delay && durationMs(delay);
    this.requestId = find(details, RequestInfoSchema)?.requestId;
  }
}

/** What gRPC reports as a `TandemError`; anything else as it is. */
export function asTandemError(error: unknown): unknown {
  if (!isServiceError(error)) return error;
  return new TandemError(error.details, status[error.code] as Code, detailsIn(error.metadata), { cause: error });
}

/** What a call throws that its caller gave up. */
export function cancelled(): TandemError {
  return new TandemError("the call was cancelled", "CANCELLED");
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

/** The details of a status; none where they cannot be read. */
function detailsIn(metadata: Metadata): readonly Any[] {
  const [serialized] = metadata.get("grpc-status-details-bin");
  if (!(serialized instanceof Buffer)) return [];
  try {
    return fromBinary(StatusSchema, serialized).details;
  } catch {
    return [];
  }
}

function find<D extends DescMessage>(details: readonly Any[], schema: D): MessageShape<D> | undefined {
  for (const detail of details) {
    const message = anyUnpack(detail, schema);
    if (message !== undefined) return message;
  }
  return undefined;
}
