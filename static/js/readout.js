// Read-outs: fresh values go into the nodes that are there, so that focus, hover and an open definition survive five refreshes a second.
// While a replay shows another moment, a stand-in is on the page and the fresh values go to the original behind it; so do
// the lanes' states.

const MARKS = ["data-estimated", "data-weak"];
const frozen = new Map(); // element id → the original that a stand-in replaces
const states = new Map(); // lane → the state that it is in while another is shown

/** Our own figures; the server's are under one key and come as a block. */
function figuresOf(readout) { return readout.querySelectorAll(".figures-main .figure, .figures-more:not(.server) .figure"); }

/** Write into the text node that is there: a new one would be styled and laid out from scratch. */
function setText(node, text) {
  if (node.textContent === text) return;
  const only = node.childNodes.length === 1 && node.firstChild.nodeType === Node.TEXT_NODE;
  if (only && text) node.firstChild.data = text;
  else node.textContent = text;
}

/** Update `target` from `fresh` in place. False when that is not possible: swap it then. */
export function patch(target, fresh) {
  if (!fresh?.classList.contains("readout")) return false;
  const current = frozen.get(target.id) ?? target;
  const old = figuresOf(current);
  const now = figuresOf(fresh);
  if (old.length !== now.length) return replaceFrozen(target, fresh);
  now.forEach((figure, i) => {
    rename(old[i], figure.dataset.key, figure.querySelector("[data-define]").textContent);
    setText(old[i].querySelector(".num"), figure.querySelector(".num").textContent);
    setText(old[i].querySelector(".unit"), figure.querySelector(".unit").textContent);
    for (const mark of MARKS) old[i].toggleAttribute(mark, figure.hasAttribute(mark));
  });
  patchPhases(current.querySelector(".phases"), fresh.querySelector(".phases"));
  current.querySelector(".server")?.remove();
  const server = fresh.querySelector(".server");
  if (server) current.append(server);
  return true;
}

const partsOf = (phases) => [...phases.querySelectorAll("rect, span")];
const sort = (part) => `${part.nodeName} ${part.dataset.phase} ${"unknown" in part.dataset}`;

/** The same phases as before get new widths and words; others take their place. */
function patchPhases(phases, fresh) {
  const old = partsOf(phases);
  const now = partsOf(fresh);
  if (old.length !== now.length || now.some((part, i) => sort(part) !== sort(old[i]))) {
    phases.replaceChildren(...fresh.childNodes);
    return;
  }
  now.forEach((part, i) => {
    for (const name of ["x", "width"]) if (part.hasAttribute(name)) old[i].setAttribute(name, part.getAttribute(name));
    if (part.nodeName === "SPAN") setText(old[i].querySelector("b"), part.querySelector("b").textContent);
  });
  const label = fresh.querySelector("svg").getAttribute("aria-label");
  phases.querySelector("svg").setAttribute("aria-label", label);
}

/** "Elapsed" becomes "Total" when its lane ends, and at a moment before that it is "Elapsed" again. */
function rename(figure, key, label) {
  const button = figure.querySelector("[data-define]");
  setText(button, label);
  if (figure.dataset.key === key) return;
  figure.dataset.key = key;
  button.dataset.define = key;
}

/** The lane's state has changed: it is shown now, or when the replay is left. */
export function showState(laneId, state) {
  if (states.has(laneId)) states.set(laneId, state);
  else paintState(laneId, state);
}

function paintState(laneId, state) {
  const chip = document.getElementById(`state-${laneId}`);
  if (!chip) return;
  chip.dataset.state = state;
  setText(chip.querySelector(".state-word"), state);
}

function replaceFrozen(target, fresh) {
  if (!frozen.has(target.id)) return false;
  frozen.set(target.id, fresh.cloneNode(true));
  return true;
}

/** Show another state and other values for a while: {key: {text, unit?, estimated?, key?, label?}}. Without a unit the figure
    keeps its own, as it does its key and label; without a value it shows a dash. `now` is the state to go back to. */
export function freeze(laneId, state, now, values) {
  if (!states.has(laneId)) states.set(laneId, now);
  paintState(laneId, state);
  const id = `readout-${laneId}`;
  let standIn = document.getElementById(id);
  if (!standIn) return;
  if (!frozen.has(id)) {
    const original = standIn;
    standIn = original.cloneNode(true);
    standIn.querySelector(".server")?.remove();
    standIn.querySelector(".phases").classList.add("veiled");
    original.replaceWith(standIn);
    frozen.set(id, original);
  }
  for (const figure of standIn.querySelectorAll(".figure")) {
    const value = values[figure.dataset.key] ?? { text: "–", unit: "" };
    if (value.label) rename(figure, value.key, value.label);
    setText(figure.querySelector(".num"), value.text);
    if (value.unit !== undefined) setText(figure.querySelector(".unit"), value.unit);
    figure.toggleAttribute("data-estimated", Boolean(value.estimated));
    figure.removeAttribute("data-weak");
  }
}

/** Put the server's read-outs and the states back. */
export function thaw() {
  for (const [laneId, state] of states) paintState(laneId, state);
  states.clear();
  for (const [id, original] of frozen) document.getElementById(id)?.replaceWith(original);
  frozen.clear();
}
