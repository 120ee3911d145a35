/** The times of one answer, in milliseconds since the request. */
export class Stopwatch {
  #startedAt = performance.now();
  #numFirst = 0; // tokens that came with the first
  numTokens = 0;
  /** Until the first token; null before it. */
  first = null;
  #last = 0;

  /** Tokens came. */
  count(numTokens) {
    if (!numTokens) return;
    this.#last = performance.now() - this.#startedAt;
    if (this.first === null) {
      this.first = this.#last;
      this.#numFirst = numTokens;
    }
    this.numTokens += numTokens;
  }

  /** Tokens a second after the first; null until it can be told. */
  get speed() {
    const numLater = this.numTokens - this.#numFirst;
    return numLater > 0 && this.#last > this.first ? (numLater / (this.#last - this.first)) * 1000 : null;
  }
}
