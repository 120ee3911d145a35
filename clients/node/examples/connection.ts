import { readFileSync } from "node:fs";

import { Client } from "tandem-client";

/** The gateway that `TANDEM_ADDRESS`, `TANDEM_API_KEY` and `TANDEM_CA_FILE` name. */
export function clientOfEnvironment(): Client {
  const { TANDEM_ADDRESS, TANDEM_API_KEY, TANDEM_CA_FILE } = process.env;
  return new Client(TANDEM_ADDRESS || "127.0.0.1:8700", {
    apiKey: TANDEM_API_KEY || undefined,
    tls: TANDEM_CA_FILE ? { ca: readFileSync(TANDEM_CA_FILE) } : undefined,
  });
}
