// The definition of a figure, beside the figure: on hover, on focus, by "?". The texts are the server's, see help/_definitions.html.

const HOVER_MS = 180;
let shownFor = null;
let timer = 0;

const popover = () => document.getElementById("definition");
const source = (target) => target?.closest?.("[data-define], [data-note]") ?? null;

function content(trigger) {
  if (trigger.dataset.note) {
    const p = document.createElement("p");
    p.textContent = trigger.dataset.note;
    return [p];
  }
  const entry = document.getElementById(`def-${trigger.dataset.define}`);
  return entry ? Array.from(entry.childNodes, (node) => node.cloneNode(true)) : [];
}

function place(box, trigger) {
  const at = trigger.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = box;
  const below = at.bottom + 8 + height <= innerHeight;
  const left = Math.max(8, Math.min(at.left, innerWidth - width - 8));
  box.style.left = `${left}px`;
  box.style.top = `${below ? at.bottom + 8 : Math.max(8, at.top - height - 8)}px`;
}

/** Show the definition of the figure that `trigger` names. False when it has none. */
export function show(trigger) {
  const nodes = content(trigger);
  if (!nodes.length) return false;
  const box = popover();
  box.replaceChildren(...nodes);
  if (!box.matches(":popover-open")) box.showPopover();
  place(box, trigger);
  shownFor?.removeAttribute("aria-describedby");
  trigger.setAttribute("aria-describedby", "definition");
  shownFor = trigger;
  return true;
}

/** Hide it. True when there was one. */
export function hide() {
  clearTimeout(timer);
  const open = shownFor !== null;
  shownFor?.removeAttribute("aria-describedby");
  shownFor = null;
  if (popover()?.matches(":popover-open")) popover().hidePopover();
  return open;
}

/** The figure under the pointer or with the focus, if any. */
export function current() {
  return source(document.activeElement) ?? document.querySelector("[data-define]:hover, [data-note]:hover");
}

export function watch() {
  if (!popover()) return;
  document.addEventListener("pointerover", (event) => {
    const trigger = source(event.target);
    if (trigger === shownFor || event.pointerType === "touch") return;
    clearTimeout(timer);
    if (trigger) timer = setTimeout(() => show(trigger), HOVER_MS);
    else if (shownFor && shownFor !== source(document.activeElement)) hide();
  });
  document.addEventListener("focusin", (event) => {
    const trigger = source(event.target);
    if (trigger && event.target.matches(":focus-visible")) show(trigger);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("click", (event) => {
    const trigger = source(event.target);
    if (trigger) show(trigger);
    else if (!popover().contains(event.target)) hide();
  });
  // What scrolls by itself elsewhere, such as a lane's text, moves no figure.
  document.addEventListener("scroll", (event) => { if (event.target.contains(shownFor)) hide(); }, { capture: true, passive: true });
}
