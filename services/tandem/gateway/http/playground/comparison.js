import { perSecond } from "./figures.js";

const element = (id) => document.getElementById(id);

/** Two answers to one request, with drafts and without: how fast each was, and whether they are the same. */
export class Comparison {
  hide() {
    element("comparison").hidden = true;
  }

  /**
   * @param {Generation} drafted
   * @param {Generation} plain may still go on
   */
  show(drafted, plain) {
    element("comparison").hidden = false;
    const fastest = Math.max(drafted.speed ?? 0, plain.speed ?? 0);
    for (const [name, { speed }] of [["with", drafted], ["without", plain]]) {
      element(`${name}-bar`).style.width = `${fastest ? ((speed ?? 0) / fastest) * 100 : 0}%`;
      element(`${name}-speed`).textContent = `${perSecond(speed)} tokens/s`;
    }
    if (plain.isComplete) judge(drafted, plain);
    else tell(`${plain.tokens.length} of ${drafted.tokens.length} tokens so far…`);
  }

  stop() {
    tell("Stopped before the texts could be compared.");
  }
}

/** Progress is for the eye alone: it would keep a screen reader talking. */
function tell(progress, verdict = "", className = "") {
  element("progress").textContent = progress;
  element("verdict").textContent = verdict;
  element("verdict").className = className;
}

function judge(drafted, plain) {
  const index = drafted.differsAt(plain);
  const words = [judgement(index, drafted), factor(drafted, plain)].filter(Boolean).join(" ");
  tell("", words, index === null ? "equal" : "different");
}

function judgement(index, { tokens }) {
  if (index === null) return `The texts are equal, all ${tokens.length} tokens.`;
  return (
    `The texts differ from token ${index + 1} on. Two tokens whose scores tie within the number format's rounding ` +
    "may swap; anything else is a fault."
  );
}

function factor(drafted, plain) {
  if (!drafted.speed || !plain.speed) return "";
  return `Drafts made it ${(drafted.speed / plain.speed).toFixed(1)} times as fast.`;
}
