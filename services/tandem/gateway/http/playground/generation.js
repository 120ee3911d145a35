import { Rounds } from "./rounds.js";
import { Stopwatch } from "./stopwatch.js";

/** One answer, from the request to its last token. */
export class Generation {
  tokens = [];
  finishReason = null;
  /** What the server counted; null until the end, and for good if that never came. */
  usage = null;
  #rounds = new Rounds();
  #stopwatch = new Stopwatch();

  /** @param {{path: string, body: object}} request */
  constructor(request) {
    this.request = request;
  }

  /**
   * Asks, and takes the answer in.
   *
   * @param {Door} door
   * @param {AbortSignal} signal
   * @param {() => void} onChange is called as it comes
   */
  async run(door, signal, onChange) {
    for await (const chunk of door.stream(this.request.path, this.request.body, signal)) {
      this.finishReason = chunk.choices[0]?.finish_reason ?? this.finishReason;
      this.usage = chunk.usage ?? this.usage;
      const tokens = chunk.tandem?.tokens ?? [];
      this.#stopwatch.count(tokens.length);
      for (const token of tokens) this.#rounds.push(token.drafted);
      this.tokens.push(...tokens);
      onChange();
    }
  }

  /** The server's statistics once they came, until then those that the tokens tell. */
  get statistics() {
    return this.usage?.tandem ?? this.#rounds.statistics;
  }

  get isComplete() {
    return this.usage !== null;
  }

  /** Milliseconds until the first token; null before it. */
  get firstToken() {
    return this.#stopwatch.first;
  }

  /** Tokens a second after the first; null until it can be told. */
  get speed() {
    return this.#stopwatch.speed;
  }

  /** Index of the first token in which two answers differ; null where they are equal. */
  differsAt(other) {
    const length = Math.max(this.tokens.length, other.tokens.length);
    for (let index = 0; index < length; index += 1) {
      const [one, two] = [this.tokens[index], other.tokens[index]];
      if (one?.id !== two?.id || one?.text !== two?.text) return index;
    }
    return null;
  }
}
