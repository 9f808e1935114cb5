// Another look at a run: any moment of it, slow motion, and the photo finish. Works from the recorded deltas only, sends nothing.

import { countWords, figure, words } from "./axis.js";
import { freeze, thaw } from "./readout.js";
import { LaneText, trim } from "./text.js";

export class Replay {
  constructor(recording, strip, text, controls) {
    this.recording = recording;
    this.strip = strip;
    this.text = text;           // its panes are where the lanes' own text stands
    this.controls = controls;   // {play, word, speed, photo, scrub, leave}
    this.moment = null;         // µs, null = not replaying
    this.playing = false;
    this.panes = new Map();
    this.places = new Map();    // Follow → where its lane's own text was left
    controls.play.addEventListener("click", () => this.toggle());
    controls.photo.addEventListener("click", () => this.photo());
    controls.leave.addEventListener("click", () => this.leave());
    controls.scrub.addEventListener("input", () => this.scrubbed());
    this.sync();
  }

  get active() { return this.moment !== null; }

  toggle() {
    if (this.playing) { this.pause(); return; }
    const over = !this.active || this.moment >= this.recording.length();
    if (over) this.show(0);
    this.playing = true;
    this.since = performance.now();
    this.began = this.moment;
    this.sync();
    requestAnimationFrame(() => this.tick());
  }

  pause() {
    this.playing = false;
    this.sync();
  }

  tick() {
    if (!this.playing) return;
    const speed = Number(this.controls.speed.value);
    const now = performance.now();
    this.began += (now - this.since) * 1000 * speed;
    this.since = now;
    const end = this.recording.length();
    this.show(Math.min(this.began, end));
    if (this.moment >= end) this.pause();
    else requestAnimationFrame(() => this.tick());
  }

  /** Every lane at the instant at which the fastest ended; pressed again, back. */
  photo() {
    const at = this.recording.photoFinish();
    if (at === null) return;
    if (this.active && !this.playing && this.moment === at) { this.leave(); return; }
    this.pause();
    this.show(at);
  }

  scrubbed() {
    const { scrub } = this.controls;
    const share = Number(scrub.value) / Number(scrub.max); // before pause(), which sets the slider
    this.pause();
    this.show(share * this.recording.length());
  }

  show(moment) {
    if (!this.active) for (const follow of this.text.follows.values()) this.places.set(follow, follow.leave());
    this.moment = moment;
    document.body.dataset.replay = "";
    for (const lane of this.recording.lanes.values()) this.showLane(lane);
    trim(Array.from(this.panes.values(), (pane) => pane.text));
    this.strip.moment = moment;
    this.strip.wake();
    this.sync();
  }

  showLane(lane) {
    const host = document.getElementById(`replay-${lane.id}`);
    if (!host) return;
    let pane = this.panes.get(lane.id);
    if (!pane || pane.host !== host || pane.lane !== lane) {
      pane = newPane(host, lane, this.text.follow(lane.id, host.closest(".lane-text")));
      this.panes.set(lane.id, pane);
    }
    const count = lane.countUntil(this.moment);
    if (count < pane.count) { pane.text.reset(); pane.count = 0; }
    for (; pane.count < count; pane.count += 1) {
      const i = pane.count;
      if (lane.kind[i] !== "t") pane.text.push(lane.kind[i], lane.text[i], lane.step[i]);
    }
    pane.text.flush(Infinity);
    pane.note.textContent = note(lane, count, this.moment);
    pane.follow.settle();
    freeze(lane.id, lane.stateAt(this.moment), lane.state, this.figures(lane, count));
  }

  /** What can be known of a lane at the moment: marks are exact, counts are shares of the final count. */
  figures(lane, count) {
    const request = lane.states.find((s) => s.state === "prefill")?.at ?? Infinity;
    const over = lane.overAt(this.moment);
    const at = Math.min(this.moment + lane.zero, lane.end?.at ?? Infinity);
    const total = lane.end?.figures.output_tokens ?? null;
    const share = total === null ? null : lane.charsUntil(count) / Math.max(1, lane.charsUntil(lane.at.length));
    const tokens = share === null ? null : Math.round(total * share);
    const flow = lane.firstText === null ? 0 : at - lane.firstText;
    const speed = tokens && flow > 0 ? Math.round(tokens / (flow / 1e6)) : null;
    const elapsed = {
      ...(request <= at ? figure(at - request) : { text: "–", unit: "" }),
      key: over && lane.steps === 1 ? "e2e" : "elapsed",
      label: over ? "Total" : "Elapsed",
    };
    const seen = (mark) => (mark !== null && mark <= at ? figure(mark - request) : undefined);
    return {
      ttft: known(lane.end?.figures.ttft_ms, seen(lane.firstText)),
      ttfo: known(lane.end?.figures.ttfo_ms, seen(lane.firstAnswer)),
      tok_s: speed === null ? undefined : { text: rate(over ? lane.end.figures.tok_s ?? speed : speed), estimated: !over },
      elapsed, e2e: elapsed, // one figure, under the name that it has now
      voice_budget: seen(lane.firstAnswer),
      step: { text: `${over ? lane.steps : Math.max(0, new Set(lane.step.slice(0, count)).size - 1)}/${lane.steps}` },
      output_tokens: tokens === null ? undefined : { text: countWords(tokens), estimated: !over },
      chunks: { text: String(count) },
    };
  }

  leave() {
    if (!this.active) return;
    this.playing = false;
    this.moment = null;
    delete document.body.dataset.replay;
    for (const pane of this.panes.values()) pane.host.replaceChildren();
    this.panes.clear();
    thaw();
    for (const [follow, place] of this.places) follow.go(place);
    this.places.clear();
    this.strip.moment = null;
    this.strip.wake();
    this.sync();
  }

  /** Controls follow the state. */
  sync() {
    const { play, word, speed, photo, scrub, leave } = this.controls;
    const finish = this.recording.photoFinish();
    const over = !this.recording.running && this.recording.length() > 0;
    play.disabled = speed.disabled = scrub.disabled = !over;
    photo.disabled = finish === null;
    if (!this.active && document.activeElement === leave) play.focus();
    leave.hidden = !this.active;
    play.dataset.playing = String(this.playing);
    word.textContent = this.playing ? "Pause" : "Replay";
    play.querySelector("use").setAttribute("href", this.playing ? "#i-pause" : "#i-play");
    photo.setAttribute("aria-pressed", String(this.active && !this.playing && this.moment === finish));
    const share = this.active && this.recording.length() ? this.moment / this.recording.length() : 1;
    scrub.value = String(Math.round(share * Number(scrub.max)));
    scrub.setAttribute("aria-valuetext", this.active ? words(this.moment) : "the end");
  }
}

function newPane(host, lane, follow) {
  host.replaceChildren();
  const noteBox = document.createElement("p");
  noteBox.className = "replay-note";
  const box = document.createElement("div");
  host.append(noteBox, box);
  return { host, lane, note: noteBox, text: new LaneText(box, lane.steps), count: 0, follow };
}

function note(lane, count, moment) {
  if (lane.overAt(moment)) return lane.end.outcome === "done" ? "finished" : lane.end.outcome;
  if (!count) return "nothing yet";
  if (!lane.end) return "under way";
  return `${Math.floor((100 * lane.charsUntil(count)) / Math.max(1, lane.charsUntil(lane.at.length)))} % of its answer`;
}

/** The server's figure once its mark has passed, else nothing. */
function known(ms, seen) {
  if (!seen) return undefined;
  return ms == null ? seen : figure(ms * 1000);
}

function rate(value) {
  return value >= 100 ? countWords(value) : value.toFixed(1);
}
