// The page's one socket, and every htmx name that we depend on. A change of htmx is a change of this file and base.html.
// htmx and its ws extension own the connection and swap HTML fragments; this module takes the JSON frames away from them,
// reconnects on its own schedule, re-attaches to the running answer, and sees to it that one intent is sent once.

const FIRST_DELAY_S = 0.25;
const LONGEST_DELAY_S = 2;
const HOLD_MS = 5000;                      // a message written while offline is sent within this time, or not at all
const HTMX_RECONNECTS = [1006, 1011, 1012, 1013];
const GIVE_UP = { 4003: "The server refused this page. Reload it to try again.", 4008: "The server closed the connection after too many bad messages. Reload the page." };
const TOO_LONG = 1009;
const EXPLAINED = { [TOO_LONG]: "That was longer than the server takes in one message, so nothing was sent. Shorten the prompt and press Run again." };
const READOUT = /^\s*<div id="readout-/;
const KEYED = ["run", "rerun"];            // a repeated press carries the same key until the server has answered

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
}

/** Seconds until attempt k (0, 1, …): min(0.25·2^k, 2), the upper half of it at random. */
export function reconnectDelay(k, random = Math.random) {
  const full = Math.min(FIRST_DELAY_S * 2 ** k, LONGEST_DELAY_S);
  return full / 2 + (full / 2) * random();
}

/** The first control beside one that is disabled now, or not shown. */
export function beside(control) {
  return [...control.parentElement.querySelectorAll("button:enabled")].find((button) => button.checkVisibility());
}

export class Socket extends EventTarget {
  /** Events: "json" (detail: message), "sent" (detail: message of a control), "swapped", "link" (detail: state word),
      "refused" (detail: sentence). */
  constructor(element, { attach, patch, heir }) {
    super();
    this.element = element;
    this.attach = attach;                  // () → fields of the attach message
    this.patch = patch;                    // (target, fresh element) → true when it updated the target in place
    this.heir = heir;                      // (id of a control that is gone) → the control that takes its focus
    this.wrapper = null;
    this.attempt = 0;
    this.opened = 0;
    this.held = null;
    this.excuse = "";                      // what happened meanwhile, said once the page is attached: its notice comes anew then
    this.keys = new Map();
    this.parser = new DOMParser();
    window.htmx.config.wsReconnectDelay = () => reconnectDelay(this.attempt) * 1000;
    this.listen();
  }

  listen() {
    const on = (name, handle) => this.element.addEventListener(`htmx:${name}`, handle);
    on("wsConnecting", () => this.tell("link", "connecting"));
    on("wsOpen", (event) => this.onOpen(event.detail.socketWrapper));
    on("wsClose", (event) => this.onClose(event.detail.event.code, event.detail.socketWrapper));
    on("wsConfigSend", (event) => this.onSend(event));
    on("wsBeforeMessage", (event) => this.onMessage(event));
    on("wsAfterMessage", () => { this.restoreFocus(); this.tell("swapped"); });
    on("oobBeforeSwap", (event) => {
      const { target, fragment } = event.detail;
      if (this.patch(target, fragment.firstElementChild)) event.detail.shouldSwap = false;
    });
    for (const name of ["online", "offline"]) window.addEventListener(name, () => this.networkChanged());
  }

  tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }

  onOpen(wrapper) {
    this.wrapper = wrapper;
    this.opened += 1;
    this.sendAttach();
  }

  /** Ask for everything that is not here yet. `html`: the fragments too, after anything may have been missed. */
  sendAttach() {
    this.raw({ action: "attach", html: this.opened > 1, ...this.attach() });
  }

  onClose(code, wrapper) {
    this.wrapper = null;
    this.attempt += 1;
    if (code in GIVE_UP) {
      this.tell("link", "closed");
      this.tell("refused", GIVE_UP[code]);
      return;
    }
    this.excuse = EXPLAINED[code] ?? this.excuse;
    this.tell("link", "offline");
    if (HTMX_RECONNECTS.includes(code)) return; // htmx has set its timer already, with our delay
    this.timer = setTimeout(() => wrapper.reconnect(), reconnectDelay(this.attempt) * 1000);
  }

  /** The browser's word says nothing about a server on this machine, so it is asked: "attached" says that it is there. */
  networkChanged() {
    this.attempt = 0;
    if (!this.wrapper) return;
    this.tell("link", "offline");
    this.sendAttach();
  }

  onMessage(event) {
    const { message } = event.detail;
    if (typeof message !== "string" || message[0] !== "{") {
      if (this.patched(message)) event.preventDefault();
      else this.focused = document.activeElement;
      return;
    }
    event.preventDefault();                // htmx must not parse it
    const data = JSON.parse(message);
    if (data.type === "attached") this.onAttached();
    if (data.type === "run" || data.type === "error") this.keys.clear();
    this.tell("json", data);
  }

  /** A read-out comes twenty times a second: it is put into its place here, without a swap. False where it wants one. */
  patched(message) {
    if (!READOUT.test(message)) return false;
    const fresh = this.parser.parseFromString(message, "text/html").body.firstElementChild;
    const target = document.getElementById(fresh.id);
    return !target || this.patch(target, fresh);
  }

  onAttached() {
    this.attempt = 0;
    this.tell("link", "live");
    if (this.excuse) this.tell("refused", this.excuse);
    this.excuse = "";
    const held = this.held;
    this.held = null;
    if (held && performance.now() - held.at < HOLD_MS) this.raw(held.message);
    else if (held) this.tell("refused", "The connection was away for too long: nothing was sent. Press Run again.");
  }

  /** Every send of htmx passes here: give it its key, and hold back what would be queued. */
  onSend(event) {
    const message = { ...event.detail.parameters };
    this.sign(message);
    event.detail.parameters = message;
    event.detail.headers = null;
    if (event.detail.errors?.length) return; // htmx stops an invalid form itself
    this.tell("sent", message);
    if (this.wrapper) return;
    event.preventDefault();
    event.detail.triggeringEvent?.preventDefault();
    this.hold(message);
  }

  sign(message) {
    if (!KEYED.includes(message.action)) return;
    const intent = `${message.action} ${message.lane ?? ""}`;
    if (!this.keys.has(intent)) this.keys.set(intent, randomKey());
    message.key = this.keys.get(intent);
  }

  hold(message) {
    this.held = { message, at: performance.now() }; // the last one only: a row of presses is one wish
    if (this.opened) this.tell("refused", "No connection right now. It will be sent if the connection is back within 5 seconds.");
  }

  /** Send a message that does not come from a form. */
  send(message) {
    this.sign(message);
    if (this.wrapper) this.raw(message);
    else this.hold(message);
  }

  raw(message) { this.wrapper?.sendImmediately(JSON.stringify(message)); }

  /** A swap replaces the focused control: give the focus to its successor, beside it where that is of no use now, or to
      its heir. */
  restoreFocus() {
    const { id } = this.focused ?? {};
    if (!id || document.activeElement !== document.body) return;
    const successor = document.getElementById(id);
    const next = !successor ? this.heir(id) : successor.disabled || !successor.checkVisibility() ? beside(successor) ?? successor : successor;
    next.focus({ preventScroll: true });
  }
}
