import { events } from "./events.js";

/** What went wrong, in words for the person at the page. */
export class DoorError extends Error {}

const MEANINGS = {
  401: "The API key is missing or wrong.",
  404: "There is nothing of that name.",
  429: "The server has no room for this request now.",
  503: "The server cannot answer yet.",
};

/** The gateway's HTTP door. Paths are relative, so that the page may stand behind a proxy's prefix. */
export class Door {
  /** The key goes into requests only: no storage, no address. */
  key = "";

  /** @returns {Promise<object>} the first model served */
  async model(signal) {
    const response = await this.#send("v1/models", { signal });
    const { data } = await response.json();
    if (!data.length) throw new DoorError("The server has no model yet.");
    return data[0];
  }

  /**
   * The chunks of a streamed answer, as they come.
   *
   * @param {string} path
   * @param {object} body
   * @param {AbortSignal} signal cancels the request, and with it the work behind it
   */
  async *stream(path, body, signal) {
    const headers = { "content-type": "application/json" };
    const response = await this.#send(path, { method: "POST", headers, body: JSON.stringify(body), signal });
    try {
      for await (const data of events(response.body)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new DoorError(chunk.error.message);
        yield chunk;
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // which is what a broken connection is
    }
    throw new DoorError("The connection was lost before the answer was complete.");
  }

  async #send(path, options) {
    const headers = { ...options.headers };
    if (this.key) headers.authorization = `Bearer ${this.key}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      throw new DoorError("The server cannot be reached.");
    }
    if (response.ok) return response;
    const answer = await response.json().catch(() => null);
    const message = answer?.error?.message ?? `It answered with status ${response.status}.`;
    throw new DoorError([MEANINGS[response.status], message].filter(Boolean).join(" "));
  }
}
