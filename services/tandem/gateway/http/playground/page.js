import { Answer } from "./answer.js";
import { Comparison } from "./comparison.js";
import { Door, DoorError } from "./door.js";
import { EXAMPLES } from "./examples.js";
import { Figures } from "./figures.js";
import { Generation } from "./generation.js";
import { Painter } from "./painter.js";
import { readRequest, RequestError, withoutDrafts } from "./request.js";

const ENDS = {
  length: "Ended at the most tokens asked for.",
  stop: "Ended by the model.",
  tool_calls: "Waits for what its calls give.",
};

const element = (id) => document.getElementById(id);
const door = new Door();
const answer = new Answer(element("answer"));
const figures = new Figures();
const comparison = new Comparison();
const painter = new Painter();

let running = null; // an AbortController while something runs
let finished = null; // the newest complete answer, which can be compared

async function run() {
  answer.clear();
  comparison.hide();
  finished = null;
  const generation = new Generation(readRequest());
  const paint = () => {
    answer.show(generation.tokens);
    figures.show(generation);
  };
  figures.clear(generation.request.body.tandem.num_speculative_tokens);
  say("Waiting for the first token…");
  try {
    await generation.run(door, running.signal, () => {
      if (generation.tokens.length) say("Writing…");
      painter.soon(paint);
    });
  } finally {
    painter.now(paint);
  }
  finished = generation;
  const end = ENDS[generation.finishReason] ?? "Ended.";
  const { accepted_tokens } = generation.statistics;
  say(`${end} ${accepted_tokens} of ${generation.tokens.length} tokens were accepted drafts.`);
}

async function compare() {
  const plain = new Generation(withoutDrafts(finished.request));
  const paint = () => comparison.show(finished, plain);
  try {
    await plain.run(door, running.signal, () => painter.soon(paint));
  } finally {
    painter.now(paint);
    if (!plain.isComplete) comparison.stop();
  }
}

/** Does one thing at a time, and tells how it failed if it did. */
async function start(work) {
  if (running) return;
  running = new AbortController();
  showProblem("");
  showButtons();
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else fail(error);
  } finally {
    running = null;
    showButtons();
  }
}

function fail(error) {
  const isTold = error instanceof DoorError || error instanceof RequestError;
  if (!isTold) console.error(error);
  showProblem(isTold ? error.message : "This page failed; its console says how.");
  say("");
}

function showProblem(text) {
  element("problem").textContent = text;
  element("problem").hidden = !text;
}

function say(text) {
  if (element("status").textContent !== text) element("status").textContent = text;
}

function showButtons() {
  const focused = document.activeElement;
  element("run").disabled = Boolean(running);
  element("stop").disabled = !running;
  element("compare").disabled = Boolean(running) || !finished || !finished.request.body.tandem.num_speculative_tokens;
  if (focused?.matches("button:disabled")) element(running ? "stop" : "run").focus();
}

async function showModel() {
  try {
    const { id, tandem } = await door.model();
    element("model").textContent = id;
    element("drafter").textContent = tandem.drafter?.name ?? "none";
    if (tandem.drafter) {
      const drafts = element("drafts");
      // The default is the field's value until somebody edits it.
      drafts.max = drafts.defaultValue = tandem.drafter.num_speculative_tokens;
    }
    if (!running) showProblem("");
  } catch (error) {
    element("model").textContent = element("drafter").textContent = "unknown";
    if (!running) fail(error);
  }
}

function showKind() {
  element("chat-settings").hidden = !element("chat").checked;
}

function showExample() {
  const { isChat, prompt } = EXAMPLES[element("example").value];
  element(isChat ? "chat" : "completion").checked = true;
  element("prompt").value = prompt;
  showKind();
}

EXAMPLES.forEach(({ title }, index) => element("example").add(new Option(title, index)));
element("example").addEventListener("change", showExample);
for (const kind of ["completion", "chat"]) element(kind).addEventListener("change", showKind);
element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  start(run);
});
element("compare").addEventListener("click", () => start(compare));
element("stop").addEventListener("click", () => running?.abort());
element("key").addEventListener("input", () => (door.key = element("key").value));
element("key").addEventListener("change", showModel);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element("form").requestSubmit();
});

showExample();
await showModel();
if (!running && !finished) figures.clear(Number(element("drafts").value));
