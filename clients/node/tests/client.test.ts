import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";

import { create } from "@bufbuild/protobuf";
import { Metadata, status } from "@grpc/grpc-js";

import { Client, GenerateResponseSchema, StreamGenerateResponseSchema, TandemError } from "../src/index.js";
import { loading, withGateway } from "./gateway.js";
import type { Script } from "./gateway.js";

const SPEC = { prompt: { case: "text", value: "x" } } as const;

function check(name: string, script: Script, use: (client: Client) => Promise<void>): void {
  test(name, { timeout: 10_000 }, () =>
    withGateway(script, async (address) => {
      const client = new Client(address, { apiKey: "the key" });
      try {
        await use(client);
      } finally {
        client.close();
      }
    }),
  );
}

function delta(text: string) {
  return create(StreamGenerateResponseSchema, { event: { case: "delta", value: { text } } });
}

async function failureOf(call: Promise<unknown>): Promise<TandemError> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  assert(error instanceof TandemError);
  return error;
}

let calls = 0;

check(
  "a refusal that passes is tried again, when the gateway says",
  {
    generate: () => {
      if (++calls < 3) throw loading(150);
      return create(GenerateResponseSchema, { output: { text: "there" } });
    },
  },
  async (client) => {
    calls = 0;
    const startedAt = Date.now();
    assert.equal((await client.generate(SPEC)).output?.text, "there");
    assert.equal(calls, 3);
    assert(Date.now() - startedAt >= 300);
  },
);

check(
  "a stream that was refused before it began is tried again",
  {
    stream: (call) => {
      if (++calls < 2) return void call.emit("error", loading(10));
      call.write(delta("there"));
      call.end();
    },
  },
  async (client) => {
    calls = 0;
    for await (const event of client.stream(SPEC)) assert(event.case === "delta" && event.value.text === "there");
    assert.equal(calls, 2);
  },
);

check(
  "a refusal that stays is told with all that the gateway said",
  {
    generate: () => {
      calls++;
      throw loading(10);
    },
  },
  async (client) => {
    calls = 0;
    const { code, message, reason, domain, field, retryAfterMs } = await failureOf(client.generate(SPEC));
    assert.deepEqual(
      { code, message, reason, domain, field, retryAfterMs },
      {
        code: "UNAVAILABLE",
        message: "loading",
        reason: "LOADING",
        domain: "tandem",
        field: undefined,
        retryAfterMs: 10,
      },
    );
    assert.equal(calls, 4);
  },
);

check(
  "details that cannot be read hide nothing else",
  {
    generate: () => {
      const metadata = new Metadata();
      metadata.set("grpc-status-details-bin", Buffer.from([0xff, 0xff]));
      throw Object.assign(new Error("no"), { code: status.NOT_FOUND, details: "no such model", metadata });
    },
  },
  async (client) => {
    const { code, message, reason } = await failureOf(client.generate(SPEC));
    assert.deepEqual([code, message, reason], ["NOT_FOUND", "no such model", undefined]);
  },
);

check(
  "the key comes with the call",
  {
    generate: ({ metadata }) =>
      create(GenerateResponseSchema, { output: { text: metadata.get("authorization").join() } }),
  },
  async (client) => {
    assert.equal((await client.generate(SPEC)).output?.text, "Bearer the key");
  },
);

let left: Promise<unknown>;

const ENDLESS: Script = {
  stream: (call) => {
    left = once(call, "cancelled");
    for (let i = 0; i < 10; i++) call.write(delta(String(i)));
  },
};

check("leaving the loop cancels the call", ENDLESS, async (client) => {
  for await (const event of client.stream(SPEC)) {
    assert(event.case === "delta" && event.value.text === "0");
    break;
  }
  await left;
});

check("a signal ends the call, and what had come is not read", ENDLESS, async (client) => {
  const controller = new AbortController();
  const read: string[] = [];
  const reading = async () => {
    for await (const event of client.stream(SPEC, { signal: controller.signal })) {
      if (event.case === "delta") read.push(event.value.text);
      await setTimeout(100); // the other messages come
      controller.abort();
    }
  };
  assert.equal((await failureOf(reading())).code, "CANCELLED");
  assert.deepEqual(read, ["0"]);
  await left;
});

check(
  "a signal that was aborted before lets nothing begin",
  {
    generate: () => {
      calls++;
      return create(GenerateResponseSchema);
    },
    stream: () => void calls++,
  },
  async (client) => {
    calls = 0;
    const signal = AbortSignal.abort();
    assert.equal((await failureOf(client.generate(SPEC, { signal }))).code, "CANCELLED");
    assert.equal((await failureOf(client.stream(SPEC, { signal }).next())).code, "CANCELLED");
    assert.equal(calls, 0);
  },
);

check("a deadline ends a stream that has begun", ENDLESS, async (client) => {
  const read: string[] = [];
  const reading = async () => {
    for await (const event of client.stream(SPEC, { timeoutMs: 300 })) {
      if (event.case === "delta") read.push(event.value.text);
    }
  };
  assert.equal((await failureOf(reading())).code, "DEADLINE_EXCEEDED");
  assert.equal(read.length, 10);
});
