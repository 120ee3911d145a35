// What the tests of all clients ask of each: node build/cases/cases.js CASE prints one JSON object.
import { FinishReasonSchema, TandemError } from "tandem-client";
import type { Client, FinishReason, GenerationSpecInit } from "tandem-client";

import { clientOfEnvironment } from "../examples/connection.js";

const SHORT = spec({ maxTokens: 32 });
const LONG = spec({ maxTokens: 900, ignoreEos: true });

const CASES: Record<string, (client: Client) => Promise<object>> = {
  stream,
  unary: async (client) => {
    const { started, output, finished } = await client.generate(SHORT);
    return {
      text: output?.text,
      num_tokens: output?.numTokens,
      finish_reason: nameOf(finished?.reason),
      request_id: started?.requestId,
    };
  },
  cancel,
  deadline: (client) => failure(client.generate(LONG, { timeoutMs: 300 }), ({ code }) => ({ code })),
  bad_request: (client) =>
    failure(
      client.generate(spec({ maxTokens: 32 }, -1)),
      ({ code, reason, domain, field, description }) => ({ code, reason, domain, field, description }),
    ),
  key: async (client) => {
    try {
      return { text: (await client.generate(spec({ maxTokens: 4 }))).output?.text };
    } catch (error) {
      if (!(error instanceof TandemError)) throw error;
      return { code: error.code, reason: error.reason };
    }
  },
};

function spec(stopping: { maxTokens: number; ignoreEos?: boolean }, temperature = 0): GenerationSpecInit {
  return {
    prompt: { case: "text", value: "def read_lines(path):" },
    sampling: { temperature },
    stopping,
  };
}

async function stream(client: Client): Promise<object> {
  const texts: string[] = [];
  let numTokens = 0;
  let ending = {};
  let requestId = "";
  for await (const event of client.stream(SHORT)) {
    switch (event.case) {
      case "started":
        requestId = event.value.requestId;
        break;
      case "delta":
        numTokens += event.value.numTokens;
        if (event.value.text) texts.push(event.value.text);
        break;
      case "finished":
        ending = {
          finish_reason: nameOf(event.value.reason),
          num_rounds: event.value.speculation?.numRounds,
        };
    }
  }
  return {
    text: texts.join(""),
    num_messages: texts.length,
    num_tokens: numTokens,
    ...ending,
    request_id: requestId,
  };
}

async function cancel(client: Client): Promise<object> {
  const controller = new AbortController();
  let numTokens = 0;
  const reading = (async () => {
    for await (const event of client.stream(LONG, { signal: controller.signal })) {
      if (event.case !== "delta") continue;
      numTokens += event.value.numTokens;
      if (event.value.text) controller.abort();
    }
  })();
  return failure(reading, ({ code }) => ({ code, num_tokens: numTokens }));
}

async function failure(call: Promise<unknown>, show: (error: TandemError) => object): Promise<object> {
  try {
    await call;
  } catch (error) {
    if (error instanceof TandemError) return show(error);
    throw error;
  }
  throw new Error("the call did not fail");
}

function nameOf(reason: FinishReason | undefined): string | undefined {
  return reason === undefined ? undefined : FinishReasonSchema.value[reason]?.name;
}

const [name = ""] = process.argv.slice(2);
const client = clientOfEnvironment();
try {
  const run = CASES[name];
  if (run === undefined) throw new Error(`no case ${name}`);
  console.log(JSON.stringify(await run(client)));
} catch (error) {
  console.error(`${name}: ${error}`);
  process.exitCode = 1;
} finally {
  client.close();
}
