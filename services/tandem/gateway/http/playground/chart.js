const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 340;
const HEIGHT = 215;
const PLOT = { left: 34, right: WIDTH, top: 18, bottom: HEIGHT - 36 };
const GAP = 0.28; // of a position's width
const MOST_LABELS = 12;

/** Bars: the share of rounds that accepted the draft at each position. */
export class Chart {
  #svg;
  #bars = [];

  /** @param {HTMLElement} parent */
  constructor(parent) {
    this.#svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "chart" });
    parent.append(this.#svg);
    this.#layOut(0);
  }

  /**
   * @param {number[]} shares 0..1 by position
   * @param {number} numPositions at least as many are drawn
   */
  show(shares, numPositions) {
    const count = Math.max(shares.length, numPositions);
    if (count !== this.#bars.length) this.#layOut(count);
    this.#bars.forEach(({ bar, label }, position) => {
      const share = shares[position] ?? 0;
      const height = share * (PLOT.bottom - PLOT.top);
      set(bar, { y: PLOT.bottom - height, height });
      set(label, { y: PLOT.bottom - height - 5 });
      label.textContent = shares.length && count <= MOST_LABELS ? percent(share) : "";
    });
    const told = shares.map((share, position) => `draft ${position + 1}: ${percent(share)}%`).join(", ");
    this.#svg.setAttribute("aria-label", told ? `Share of rounds accepting ${told}` : "No drafts yet");
  }

  #layOut(count) {
    this.#svg.replaceChildren();
    for (const share of [0, 0.5, 1]) {
      const y = PLOT.bottom - share * (PLOT.bottom - PLOT.top);
      this.#add("line", { x1: PLOT.left, x2: PLOT.right, y1: y, y2: y, class: share ? "grid" : "axis" });
      this.#add("text", { x: PLOT.left - 7, y: y + 4, class: "scale" }, `${percent(share)}%`);
    }
    const step = (PLOT.right - PLOT.left) / Math.max(count, 1);
    const width = Math.min(step * (1 - GAP), 46);
    this.#bars = Array.from({ length: count }, (_, position) => {
      const middle = PLOT.left + step * (position + 0.5);
      const bar = this.#add("rect", { x: middle - width / 2, y: PLOT.bottom, width, height: 0, rx: 3, class: "bar" });
      const label = this.#add("text", { x: middle, y: PLOT.bottom, class: "share" });
      if (count <= MOST_LABELS || position % 4 === 3) {
        this.#add("text", { x: middle, y: PLOT.bottom + 16, class: "position" }, String(position + 1));
      }
      return { bar, label };
    });
    this.#add("text", { x: (PLOT.left + PLOT.right) / 2, y: HEIGHT - 3, class: "title" }, "draft position");
  }

  #add(name, attributes, text = "") {
    const element = make(name, attributes);
    element.textContent = text;
    this.#svg.append(element);
    return element;
  }
}

function make(name, attributes) {
  return set(document.createElementNS(SVG, name), attributes);
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function percent(share) {
  return Math.round(share * 100);
}
