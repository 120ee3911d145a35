import { Chart } from "./chart.js";

const element = (id) => document.getElementById(id);
const MOST_TERMS = 8;

/** What one answer's figures look like, while it streams and after. */
export class Figures {
  #chart = new Chart(element("chart"));
  #explanation = element("chart-sum").textContent;

  /** @param {number} numPositions positions that the empty chart shows */
  clear(numPositions) {
    for (const id of ["speed", "first-token", "tokens", "rounds", "acceptance-length"]) put(id, "–");
    element("chart-source").hidden = true;
    element("chart-sum").textContent = this.#explanation;
    this.#chart.show([], numPositions);
  }

  /** @param {Generation} generation */
  show(generation) {
    if (!generation.tokens.length) return;
    const { rounds, accepted_tokens, accepted_by_position } = generation.statistics;
    const shares = accepted_by_position.map((count) => count / rounds);
    put("speed", perSecond(generation.speed));
    put("first-token", `${Math.round(generation.firstToken)} ms`);
    put("tokens", String(generation.tokens.length));
    put("rounds", String(rounds));
    put("acceptance-length", rounds ? (1 + accepted_tokens / rounds).toFixed(2) : "–");
    element("chart-source").hidden = false;
    element("chart-source").textContent = generation.isComplete ? "final" : "live";
    element("chart-sum").textContent = generation.isComplete ? sum(shares) || this.#explanation : this.#explanation;
    this.#chart.show(shares, generation.request.body.tandem.num_speculative_tokens);
  }
}

function put(id, text) {
  element(id).textContent = text;
  element(id).classList.toggle("unknown", text === "–");
}

/** @param {?number} speed */
export function perSecond(speed) {
  if (speed === null) return "–";
  return speed < 10 ? speed.toFixed(1) : String(Math.round(speed));
}

/** A round gives one token of the target's own, and each draft as often as it is accepted. */
function sum(shares) {
  if (!shares.length || shares.length > MOST_TERMS) return "";
  const total = shares.reduce((sum, share) => sum + share, 1);
  return `1 + ${shares.map((share) => share.toFixed(2)).join(" + ")} = ${total.toFixed(2)} tokens a round`;
}
