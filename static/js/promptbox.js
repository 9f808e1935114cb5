// The prompt box: what somebody has typed there stays, whatever the server renders of it meanwhile. Only a scenario that
// they choose replaces it.

const BOX = "prompt-box";
let held = {};       // what the server holds of each field
let asked = {};      // what it was last asked to run
let given = false;   // a scenario was chosen: its prompt is to come

const form = (box) => box.querySelector("#prompt-form");
const valueOf = (field) => (field.type === "checkbox" ? field.checked : field.value);
const values = (box) => Object.fromEntries([...form(box).elements].filter(({ name }) => name).map((field) => [field.name, valueOf(field)]));
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

export function watch() { held = values(document.getElementById(BOX)); }

/** A control of the page has sent `message`. */
export function sent({ action }) {
  given = action === "scenario";
  if (action !== "run") return;
  const box = document.getElementById(BOX);
  asked = values(box);
  close(box.querySelector(".settings"));
}

/** The server has said no. */
export function refused() { given = false; }

/** Before `box` gives way to `fresh`. True where the fields can stay, with caret and open panel, and only what is around
    them is new; otherwise `fresh` takes over what was typed. */
export function patch(box, fresh) {
  if (box.id !== BOX) return false;
  const server = values(fresh);
  const stays = !given && (same(server, held) || same(server, asked));
  if (stays) renewScenarios(box, fresh);
  else if (!given) keepTyped(box, fresh);
  held = server;
  given = false;
  return stays;
}

function renewScenarios(box, fresh) {
  const row = fresh.querySelector(".scenarios");
  if (box.querySelector(".scenarios").isEqualNode(row)) return;
  box.querySelector(".scenarios").replaceWith(row);
  window.htmx.process(row);
}

function keepTyped(box, fresh) {
  const now = values(box);
  for (const field of form(fresh).elements) {
    if (field.readOnly || !(field.name in now) || now[field.name] === held[field.name]) continue;
    if (field.type === "checkbox") field.checked = now[field.name];
    else if (field.type !== "hidden") field.value = now[field.name];
  }
}

function close(panel) {
  const inside = panel.contains(document.activeElement);
  panel.open = false;
  if (inside) panel.querySelector("summary").focus();
}
