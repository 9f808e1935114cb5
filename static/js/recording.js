// What the server sent about a run: states, deltas with arrival times, ends. All times in µs from the run's common start.
// No DOM in here: the text, the race strip and the replay read it, only page.js writes it.

const STATE = { done: "done", stopped: "stopped", interrupted: "stopped" }; // of an outcome; all others failed

class LaneRecord {
  constructor({ lane, letter, label, badge, steps = 1 }) {
    Object.assign(this, { id: lane, letter, label, badge, steps });
    this.states = [];        // {at, state, step}
    this.at = [];            // one entry per delta in these four
    this.kind = [];
    this.text = [];
    this.step = [];
    this.end = null;         // {at, took, outcome, figures}
    this.zero = 0;           // where this lane's own time begins, see Recording.align
    this.firstText = null;   // of any kind
    this.firstAnswer = null;
  }

  addDelta([at, kind, text, step]) {
    this.at.push(at);
    this.kind.push(kind);
    this.text.push(text);
    this.step.push(step ?? 0);
    if (kind === "t") return;
    this.firstText ??= at;
    if (kind === "c") this.firstAnswer ??= at;
  }

  /** Number of deltas that had arrived at `time` (on the lane's own axis). */
  countUntil(time) {
    const limit = time + this.zero;
    let low = 0;
    let high = this.at.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.at[middle] <= limit) low = middle + 1; else high = middle;
    }
    return low;
  }

  charsUntil(count) {
    let chars = 0;
    for (let i = 0; i < count; i += 1) chars += this.text[i].length;
    return chars;
  }

  /** Whether it had ended at `time` (on the lane's own axis). */
  overAt(time) { return this.end !== null && this.end.at - this.zero <= time; }

  /** The state it was in at `time` (on the lane's own axis). */
  stateAt(time) {
    if (this.overAt(time)) return this.state;
    return this.states.findLast(({ at }) => at - this.zero <= time)?.state ?? "waiting";
  }

  get state() { return this.end ? endState(this.end.outcome) : this.states.at(-1)?.state ?? "waiting"; }
  /** How long the whole answer took, µs: as the read-out gives it, from the request, where one was sent. */
  get took() { return this.end.took ?? this.end.at - this.zero; }

  get failed() { return this.end !== null && endState(this.end.outcome) === "failed"; }
}

/** The state word for an outcome: what was stopped by us is not a failure. */
export function endState(outcome) { return STATE[outcome] ?? "failed"; }

export class Recording {
  constructor() {
    this.run = "";
    this.order = "parallel";
    this.lanes = new Map();
    this.due = [];           // µs at which each step's text has been spoken, 0 = at once
    this.budget = 0;         // µs the answer may take to begin, 0 = no limit
    this.running = false;
    this.lag = Infinity;     // smallest (browser clock − server time) seen, µs: only drawing uses it
  }

  /** Begin a run, or one lane's re-run: exactly the lanes in the message start anew. */
  begin(message, shown) {
    this.run = message.run;
    this.order = message.order ?? "parallel";
    this.due = message.due_us ?? [];
    this.budget = message.budget_us ?? 0;
    this.running = true;
    this.lag = Infinity;
    for (const id of [...this.lanes.keys()]) if (!shown.includes(id)) this.lanes.delete(id);
    for (const lane of message.lanes) this.lanes.set(lane.lane, new LaneRecord(lane));
  }

  /** Drop the lanes whose answers are no longer shown. True where there was one. */
  keep(shown) {
    const gone = [...this.lanes.keys()].filter((id) => !shown.has(id));
    for (const id of gone) this.lanes.delete(id);
    return gone.length > 0;
  }

  /** Give the lanes the letters of their places now. */
  relabel(rows) {
    for (const { id, letter } of rows) if (this.lanes.has(id)) this.lanes.get(id).letter = letter;
  }

  // The frames below name their run too. It is not compared: a socket keeps its order, so nothing of an earlier run
  // can come after the message that began this one, and a lane that ran again alone has another run than its neighbours.

  addState({ lane: id, state, at_us: at, step = 0 }) {
    const lane = this.lanes.get(id);
    if (!lane) return null;
    if (lane.states.some((s) => s.at === at && s.state === state && s.step === step)) return null; // a replayed one
    lane.states.push({ at, state, step });
    if (this.order === "sequential" && state === "connecting" && lane.states.length === 1) lane.zero = at;
    this.touch(at);
    return lane;
  }

  /** Add a frame's new deltas. Returns the lanes that a gap was found in: the page must re-attach for those. */
  addDeltas({ lanes }, now) {
    const gaps = [];
    for (const [id, { from, d }] of Object.entries(lanes)) {
      const lane = this.lanes.get(id);
      if (!lane) continue;
      if (from > lane.at.length) { gaps.push(id); continue; }
      for (let i = lane.at.length - from; i < d.length; i += 1) lane.addDelta(d[i]);
      if (d.length) this.touch(d.at(-1)[0], now);
    }
    return gaps;
  }

  addEnd({ lane: id, outcome, at_us: at, took_us: took, figures }) {
    const lane = this.lanes.get(id);
    if (!lane || lane.end) return null;
    lane.end = { at, took, outcome, figures: figures ?? {} };
    return lane;
  }

  /** How many deltas of each lane are already here. */
  have() {
    return Object.fromEntries([...this.lanes].map(([id, lane]) => [id, lane.at.length]));
  }

  touch(at, now = performance.now()) {
    this.lag = Math.min(this.lag, now * 1000 - at);
  }

  /** Where the running edge is now, µs. Drawn, never printed: it is the browser's clock. */
  now() {
    return this.lag === Infinity ? 0 : Math.max(0, performance.now() * 1000 - this.lag);
  }

  /** The lane that finished its whole answer first, null while none has. Thoughts alone are no answer. */
  first() {
    const done = [...this.lanes.values()].filter((l) => l.end?.outcome === "done" && l.kind.some((kind) => kind !== "r"));
    return done.reduce((best, lane) => (!best || lane.end.at - lane.zero < best.end.at - best.zero ? lane : best), null);
  }

  /** The instant at which the fastest lane finished its whole answer, µs, or null. */
  photoFinish() {
    const first = this.first();
    return first && first.end.at - first.zero;
  }

  /** The last moment of the run, µs. */
  length() {
    let last = 0;
    for (const lane of this.lanes.values()) {
      last = Math.max(last, (lane.end?.at ?? lane.at.at(-1) ?? lane.states.at(-1)?.at ?? 0) - lane.zero);
    }
    return last;
  }

  /** A stored run as the server's JSON gives it. */
  static from(stored) {
    const recording = new Recording();
    recording.begin(stored, stored.lanes.map(({ lane }) => lane));
    recording.running = false;
    for (const { lane, states = [], d = [], end_us: at, took_us, outcome, figures } of stored.lanes) {
      for (const [when, state, step] of states) recording.addState({ lane, state, at_us: when, step });
      recording.addDeltas({ lanes: { [lane]: { from: 0, d } } });
      if (at != null) recording.addEnd({ lane, outcome, at_us: at, took_us, figures });
    }
    return recording;
  }
}
