const TITLES = { thought: "Thought", tool_call: "Tool call" };
const NEAR_END = 40; // pixels

/** An answer on the page. Whatever a token says is text: none of it ever becomes markup. */
export class Answer {
  #element;
  #part = null;
  #block = null; // where the tokens of that part go
  #numShown = 0;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  clear() {
    this.#element.replaceChildren();
    this.#part = this.#block = null;
    this.#numShown = 0;
  }

  /**
   * Adds what is not shown yet, and follows the end unless the reader scrolled away from it.
   *
   * @param {{id: number, text: string, drafted: boolean, part: ?string}[]} tokens all of the answer so far
   */
  show(tokens) {
    const { scrollHeight, scrollTop, clientHeight } = this.#element;
    const follows = scrollHeight - scrollTop - clientHeight < NEAR_END;
    for (const token of tokens.slice(this.#numShown)) {
      this.#numShown += 1;
      if (token.part !== "control") this.#blockOf(token.part ?? "text").append(this.#span(token));
    }
    if (follows) this.#element.scrollTop = this.#element.scrollHeight;
  }

  #span({ id, text, drafted }) {
    const span = document.createElement("span");
    span.className = drafted ? "token drafted" : "token";
    span.title = `Token ${this.#numShown}, id ${id}: ${drafted ? "drafted and accepted" : "written by the target"}`;
    span.textContent = text;
    return span;
  }

  #blockOf(part) {
    if (part !== this.#part) {
      this.#part = part;
      this.#block = document.createElement("pre");
      this.#element.append(part in TITLES ? this.#apart(TITLES[part], this.#block) : this.#block);
    }
    return this.#block;
  }

  #apart(title, block) {
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    details.open = true;
    details.className = "apart";
    summary.textContent = title;
    details.append(summary, block);
    return details;
  }
}
