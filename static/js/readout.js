// Read-outs: fresh values go into the nodes that are there, so that focus, hover and an open definition survive five refreshes a second.
// While a replay shows another moment, a stand-in is on the page and the fresh values go to the original behind it.

const MARKS = ["data-estimated", "data-weak"];
const frozen = new Map(); // element id → the original that a stand-in replaces

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
    if (old[i].dataset.key !== figure.dataset.key) rename(old[i], figure);
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

/** "Elapsed" becomes "Total" when its lane ends. */
function rename(old, figure) {
  old.dataset.key = figure.dataset.key;
  const button = old.querySelector("[data-define]");
  button.dataset.define = figure.dataset.key;
  button.textContent = figure.querySelector("[data-define]").textContent;
}

function replaceFrozen(target, fresh) {
  if (!frozen.has(target.id)) return false;
  frozen.set(target.id, fresh.cloneNode(true));
  return true;
}

/** Show other values for a while: {key: {text, unit?, estimated?}}. Without a unit the figure keeps its own; without a value it shows a dash. */
export function freeze(laneId, values) {
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
    setText(figure.querySelector(".num"), value.text);
    if (value.unit !== undefined) setText(figure.querySelector(".unit"), value.unit);
    figure.toggleAttribute("data-estimated", Boolean(value.estimated));
    figure.removeAttribute("data-weak");
  }
}

/** Put the server's read-outs back. */
export function thaw() {
  for (const [id, original] of frozen) document.getElementById(id)?.replaceWith(original);
  frozen.clear();
}
