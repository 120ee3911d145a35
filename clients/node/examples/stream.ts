// Prints a text as it is made: node build/examples/stream.js [PROMPT]
import { TandemError } from "tandem-client";

import { clientOfEnvironment } from "./connection.js";

const [prompt = "def read_lines(path):"] = process.argv.slice(2);
const client = clientOfEnvironment();
try {
  for await (const event of client.stream({
    prompt: { case: "text", value: prompt },
    stopping: { maxTokens: 64 },
  })) {
    if (event.case === "delta") process.stdout.write(event.value.text);
  }
  process.stdout.write("\n");
} catch (error) {
  if (!(error instanceof TandemError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
