/** What the form asks for cannot be sent; the message says what to change. */
export class RequestError extends Error {}

const element = (id) => document.getElementById(id);
const number = (id) => Number(element(id).value);

/**
 * The request that the form describes. An empty seed is drawn here and written into the form, so that the same answer
 * can be asked for again. No model is named: there is one.
 *
 * @returns {{path: string, body: object}}
 */
export function readRequest() {
  if (!element("seed").value) element("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  const common = {
    temperature: number("temperature"),
    seed: number("seed"),
    max_tokens: number("max-tokens"),
    stream: true,
    stream_options: { include_usage: true },
    tandem: { tokens: true, num_speculative_tokens: number("drafts") },
  };
  const prompt = element("prompt").value;
  if (!prompt) throw new RequestError("The prompt is empty.");
  if (!element("chat").checked) return { path: "v1/completions", body: { ...common, prompt } };
  return { path: "v1/chat/completions", body: { ...common, messages: [{ role: "user", content: prompt }], ...chat() } };
}

/** The same request with nobody drafting. */
export function withoutDrafts({ path, body }) {
  return { path, body: { ...body, tandem: { ...body.tandem, num_speculative_tokens: 0 } } };
}

function chat() {
  const options = {};
  if (element("thinking").checked) options.reasoning_effort = "medium";
  if (element("tools").value.trim()) options.tools = parseTools(element("tools").value);
  return options;
}

function parseTools(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new RequestError(`The tools are not JSON: ${error.message}.`);
  }
}
