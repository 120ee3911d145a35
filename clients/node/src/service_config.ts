/**
 * Which refusals are tried again, and when: a gateway decides on admission before anything of the text is sent, so
 * nothing is made twice. It says itself when to come back, which then counts instead of the backoff.
 */
export const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [{ service: "tandem.v1.GenerationService" }, { service: "tandem.v1.ModelService" }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.2s",
        maxBackoff: "5s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};
