// Keys press the control that names them in aria-keyshortcuts, so that a key and its button cannot drift apart.

import * as definitions from "./definitions.js";

const FIELDS = "input:not([type=checkbox]):not([type=range]):not([type=button]), textarea, select, [contenteditable]";
const STORED = "single-keys";

function singleKeysOn() {
  try { return localStorage.getItem(STORED) !== "off"; } catch { return true; }
}

function nameOf(event) {
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
  if (event.ctrlKey) return `Control+${key}`;
  if (event.metaKey) return `Meta+${key}`;
  return event.altKey ? "" : key;
}

function controlFor(name) {
  const all = document.querySelectorAll("[aria-keyshortcuts]");
  return Array.from(all).find((node) => node.getAttribute("aria-keyshortcuts").split(" ").includes(name) && !node.disabled && node.ariaDisabled !== "true" && !node.hidden);
}

function onKey(event) {
  if (event.defaultPrevented || event.isComposing) return;
  if (event.repeat) {                                      // a key that is held presses once
    if (event.key === "Enter" && event.target.closest?.("button")) event.preventDefault();
    return;
  }
  const name = nameOf(event);
  if (!name) return;
  if (document.querySelector("dialog[open]")) return;      // Esc there closes it, the rest is for the page below
  if (name === "Escape" && escapes(event)) return;
  if (name.length === 1 && (event.target.closest?.(FIELDS) || !singleKeysOn())) return;
  if (name === "?" && definitions.current() && definitions.show(definitions.current())) { event.preventDefault(); return; }
  const control = controlFor(name);
  if (!control) return;
  event.preventDefault();
  if (control.matches("summary")) control.focus();         // what it opens comes next in the order of Tab
  control.click();
}

/** What Escape closes before it stops anything. */
function escapes(event) {
  const settings = document.querySelector("details.settings[open], details.steps[open], details.picks[open]");
  if (!definitions.hide() && !settings) return false;
  if (settings) {
    settings.open = false;
    settings.querySelector("summary").focus();
  }
  event.preventDefault();
  return true;
}

/** A press that is not meant: of what cannot be done now, or the second of a double click, which finds under the pointer
    what the first has put there. */
function onClick(event) {
  const control = event.target.closest?.("[aria-disabled=true], [data-once]");
  if (!control || (control.ariaDisabled !== "true" && event.detail < 2)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
}

export function watch() {
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", onClick, true);
  const box = document.getElementById("single-keys");
  if (!box) return;
  box.checked = singleKeysOn();
  box.addEventListener("change", () => {
    try { localStorage.setItem(STORED, box.checked ? "on" : "off"); } catch { /* for this page only */ }
  });
}
