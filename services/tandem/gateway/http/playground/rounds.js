/**
 * Verify rounds, read off the order of an answer's tokens: a round is the drafts that were accepted and one token of
 * the target's own, which ends it. The first token of all came with the prompt, before any round.
 */
export class Rounds {
  /** Entry i: rounds whose draft i was accepted. */
  acceptedByPosition = [];
  #ended = 0;
  #accepted = 0; // in the round that goes on
  #hasBegun = false;

  /** @param {boolean} drafted */
  push(drafted) {
    const isFirst = !this.#hasBegun;
    this.#hasBegun = true;
    if (drafted) {
      this.acceptedByPosition[this.#accepted] = (this.acceptedByPosition[this.#accepted] ?? 0) + 1;
      this.#accepted += 1;
    } else if (!isFirst) {
      this.#ended += 1;
      this.#accepted = 0;
    }
  }

  get count() {
    return this.#ended + (this.#accepted ? 1 : 0);
  }

  /** The same as the server's own statistics have it. */
  get statistics() {
    const accepted = this.acceptedByPosition.reduce((sum, rounds) => sum + rounds, 0);
    return { rounds: this.count, accepted_tokens: accepted, accepted_by_position: this.acceptedByPosition };
  }
}
