// Wires the parts to each other and to the page. What a message means is decided here, what it looks like elsewhere.

import { announce } from "./announce.js";
import { words } from "./axis.js";
import { drawStored as drawCharts } from "./charts.js";
import * as definitions from "./definitions.js";
import * as keys from "./keys.js";
import { Load } from "./load.js";
import * as promptBox from "./promptbox.js";
import { RaceStrip } from "./race.js";
import * as readout from "./readout.js";
import { endState, Recording } from "./recording.js";
import { Replay } from "./replay.js";
import * as settings from "./settings.js";
import { beside, Socket } from "./socket.js";
import { Speech } from "./speech.js";
import { TextPane } from "./text.js";

const LINK_WORDS = { connecting: "connecting", live: "connected", offline: "reconnecting", closed: "disconnected" };
const $ = (id) => document.getElementById(id);

function laneCards() { return [...document.querySelectorAll(".lane[data-lane]")]; }

function rows() {
  return laneCards().map((card) => {
    const pick = card.querySelector("select");
    return { id: card.dataset.lane, letter: card.dataset.letter, label: pick?.selectedOptions[0]?.textContent.trim() ?? "" };
  });
}

/** The lanes as the load drawer needs them. */
function lanesShown() {
  return laneCards().map((card) => ({ id: card.dataset.lane, letter: card.dataset.letter, slug: card.querySelector("select").value }));
}

/** "A", "A and B", "A, B and C". */
function list(names) {
  return names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0];
}

/** A page that goes away ends its run: the browser asks whether that is meant. */
function askFirst(event) { event.preventDefault(); }

class Arena {
  constructor(element) {
    this.element = element;
    this.recording = new Recording();
    this.recording.run = element.dataset.run;
    this.rows = rows();
    this.strip = new RaceStrip($("race"), this.recording, () => this.rows); // asked in every frame: read when swapped
    this.text = new TextPane(this.recording);
    this.speech = new Speech(this.recording);
    this.replay = new Replay(this.recording, this.strip, this.text, {
      play: $("replay"), word: $("replay-word"), speed: $("replay-speed"), photo: $("photo"), scrub: $("scrub"), leave: $("live"),
    });
    this.load = new Load({ lanes: lanesShown });
    this.attaching = false;
    this.catchingUp = false;       // between "attached" and the end of what is replayed, nothing is announced
    this.socket = new Socket(element, {
      attach: () => this.attachment(),
      patch: (old, fresh) => readout.patch(old, fresh) || promptBox.patch(old, fresh),
      heir: (id) => this.heir(id),
    });
    this.socket.addEventListener("json", (event) => this.receive(event.detail));
    this.socket.addEventListener("sent", (event) => promptBox.sent(event.detail));
    this.socket.addEventListener("swapped", () => this.swapped());
    this.socket.addEventListener("link", (event) => this.link(event.detail));
    this.socket.addEventListener("refused", (event) => this.notice("warn", event.detail));
    this.controls();
  }

  attachment() {
    return {
      arena: this.element.dataset.arena,
      lanes: laneCards().map((card) => card.querySelector("select").value),
      run: this.recording.run,
      have: this.recording.have(),
      version: this.element.dataset.version, // of the page as it was loaded
    };
  }

  receive(message) {
    const handle = { run: this.onRun, state: this.onState, deltas: this.onDeltas, end: this.onEnd, done: this.onDone, error: this.onError, reset: this.onReset, attached: this.onAttached }[message.type];
    handle?.call(this, message);
  }

  onAttached(message) {
    this.element.dataset.arena = message.arena;
    delete this.element.dataset.version;
    history.replaceState(null, "", `?arena=${encodeURIComponent(message.arena)}`); // a reload finds the same arena
    this.attaching = true;
    if (message.run !== this.recording.run) this.running(false);
    this.catchingUp = Boolean(message.run) && message.run !== this.recording.run;
    if (this.catchingUp) setTimeout(() => { this.catchingUp = false; }, 1000);
  }

  onRun(message) {
    const again = this.attaching && message.run === this.recording.run && message.lanes.every(({ lane }) => this.recording.lanes.has(lane));
    this.attaching = false;
    if (again) return;             // a re-attach tells again what is here already
    this.replay.leave();
    this.recording.begin(message, laneCards().map((card) => card.dataset.lane));
    this.element.dataset.run = message.run;
    this.strip.reset();
    this.text.bind();
    this.running(true);
    this.load.forget(message.lanes.map(({ lane }) => lane));
    this.speech.start();
    for (const { lane } of message.lanes) {
      $(`lane-${lane}`)?.removeAttribute("data-empty");
      this.setState(lane, "waiting");
    }
  }

  onState(message) {
    const lane = this.recording.addState(message);
    if (!lane || lane.end) return;
    this.setState(lane.id, message.state);
    this.strip.wake();
  }

  onDeltas(message) {
    const before = new Map([...this.recording.lanes].map(([id, lane]) => [id, lane.firstText]));
    if (this.recording.addDeltas(message, performance.now()).length) this.socket.sendAttach();
    for (const id of Object.keys(message.lanes)) {
      const lane = this.recording.lanes.get(id);
      if (lane && before.get(id) === null && lane.firstText !== null) this.say(`Lane ${lane.letter} started after ${words(lane.firstText - lane.zero)}.`);
    }
    this.text.wake();
    this.strip.wake();
  }

  onEnd(message) {
    const lane = this.recording.addEnd(message);
    if (!lane) return;
    this.setState(lane.id, endState(message.outcome));
    if (message.error) this.showError(lane.id, message.error);
    if (lane.steps === 1) this.load.laneEnded(lane.id, $(`lane-${lane.id}`)?.querySelector("select").value, lane.end.figures.ttft_ms);
    const did = { done: "finished", stopped: "was stopped", failed: "failed" }[endState(message.outcome)];
    this.say(`Lane ${lane.letter} ${did} after ${words(lane.took)}.`);
    this.showProgress();
    this.strip.wake();
    this.replay.sync();
  }

  onDone() {
    this.running(false);
    $("notice").querySelector("[data-passing]")?.remove();
    this.strip.wake();
    this.replay.sync();
  }

  onError(message) {
    promptBox.refused();
    this.notice("error", message.message);
  }

  onReset(message) {
    this.socket.excuse = message.message;
    this.running(false);
  }

  say(sentence) { if (!this.catchingUp && sentence) announce(sentence); }

  /** Until there is a verdict: who was first, and whom it waits for. */
  showProgress() {
    const line = document.querySelector(".verdict-wait:not(.spoken)");
    const first = this.recording.first();
    const waiting = [...this.recording.lanes.values()].filter((lane) => !lane.end).map((lane) => lane.letter);
    if (!line || !waiting.length) return;
    line.textContent = first ? `${first.letter} done after ${words(first.took)}, waiting for ${list(waiting)}` : "Racing";
  }

  sayVerdict() {
    const { state } = $("verdict").dataset;
    if (this.verdict === "running" && state === "final") this.say(document.querySelector(".verdict-line").textContent);
    this.verdict = state;
  }

  setState(id, state) {
    const card = $(`lane-${id}`);
    if (!card) return;
    card.dataset.state = state;
    readout.showState(id, state);
    const focused = document.activeElement;
    if (focused.matches(".lane-stop, .lane-rerun") && !focused.checkVisibility()) beside(focused)?.focus();
  }

  showError(id, sentence) {
    const pane = $(`text-${id}`);
    if (!pane || $(`error-${id}`)) return;
    const line = document.createElement("p");
    line.className = "lane-error";
    line.id = `error-${id}`;
    line.textContent = sentence;
    pane.append(line);
    this.text.lanes.get(id)?.follow.settle();
  }

  running(on) {
    this.recording.running = on;
    document.body.toggleAttribute("data-running", on);
    if (on) window.addEventListener("beforeunload", askFirst);
    else window.removeEventListener("beforeunload", askFirst);
    if (!on) this.speech.stop();
    this.syncButtons();
    this.replay.sync();
    if (document.activeElement.disabled) $("run").focus();
  }

  /** Where the focus goes when the control that had it is gone: to the answer of the lane now in that place, else to Run.
      No button of the lane, which a second press would press, and no field, which would take the single keys. */
  heir(id) {
    const place = this.rows.findIndex((row) => id.endsWith(`-${row.id}`));
    const card = id === "lane-add" ? laneCards().at(-1) : place < 0 ? null : laneCards()[place] ?? laneCards().at(-1);
    return card?.querySelector(".lane-text") ?? $("run");
  }

  syncButtons() {
    const on = this.recording.running;
    $("run").ariaDisabled = String(on);     // not disabled: the focus would be lost with every press
    $("stop").ariaDisabled = String(!on);
  }

  /** Fragments came in: bind to the new nodes and bring them to the present state. */
  swapped() {
    document.body.dataset.lanes = $("lanes").dataset.count;
    this.rows = rows();
    this.syncButtons();
    this.sayVerdict();
    this.load.showMarks();
    this.load.followLanes();
    settings.refresh();
    this.forgetGone();
    this.recording.relabel(this.rows);
    this.showProgress();
    for (const [id, lane] of this.recording.lanes) {
      const card = $(`lane-${id}`);
      if (card && lane.states.length && card.dataset.state !== lane.state) this.setState(id, lane.state);
    }
    this.text.bind();
    this.strip.wake();
  }

  /** A lane that the server shows without an answer (a new conversation, another backend), or no more, has none here either. */
  forgetGone() {
    const shown = new Set(laneCards().filter((card) => !("empty" in card.dataset)).map((card) => card.dataset.lane));
    if (!this.recording.keep(shown)) return;
    if (this.replay.active) this.replay.leave();
    this.replay.sync();
    if (!this.recording.lanes.size) this.strip.reset();
  }

  link(state) {
    const dot = $("link");
    dot.dataset.state = state;
    dot.querySelector(".link-text").textContent = LINK_WORDS[state];
  }

  notice(level, sentence) {
    const line = document.createElement("p");
    line.className = "notice-line";
    line.dataset.level = level;
    line.toggleAttribute("data-passing", this.recording.running); // what was refused because of a run is not when it is over
    const text = document.createElement("span");
    text.textContent = sentence;
    const close = document.createElement("button");
    close.type = "button";
    close.className = "button small quiet";
    close.dataset.dismiss = "";
    close.textContent = "Dismiss";
    line.append(text, close);
    $("notice").replaceChildren(line);
  }

  controls() {
    $("help-open").addEventListener("click", () => { definitions.hide(); $("help").showModal(); });
    $("more-figures").addEventListener("click", () => {
      const all = document.body.toggleAttribute("data-all-figures");
      $("more-figures").setAttribute("aria-pressed", String(all));
    });
    document.addEventListener("click", (event) => {
      if (!event.target.closest("[data-dismiss]")) return;
      $("notice").replaceChildren();
      $("run").focus();
    });
    document.addEventListener("invalid", (event) => {  // a bad field inside the closed panel could not be shown
      if (event.target.closest(".settings")) $("settings").open = true;
    }, true);
  }
}

/** The same strip on a stored run's page. */
async function drawStored(canvas) {
  const answer = await fetch(canvas.dataset.record);
  if (!answer.ok) return;
  const stored = await answer.json();
  const recording = Recording.from(stored);
  canvas.dataset.rows = String(stored.lanes.length);
  new RaceStrip(canvas, recording, () => stored.lanes.map(({ lane, letter, label }) => ({ id: lane, letter, label })));
}

definitions.watch();
keys.watch();
if ($("arena")) {
  settings.watch();
  promptBox.watch();
  new Arena($("arena")).load.open();
} else if ($("load-controls")) {
  new Load({ ended: () => location.reload() });
}
const charts = document.querySelectorAll(".chart[data-spec]");
if (charts.length) drawCharts(charts);
document.querySelectorAll("canvas[data-record]").forEach(drawStored);
