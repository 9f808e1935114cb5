// The load drawer, and the page of a run that is going on: follow the run, draw it, and tell each lane what load did to it.

import { figure } from "./axis.js";
import { LiveCharts } from "./livecharts.js";

const POLL_MS = 500;
const HIDDEN_POLL_MS = 2000;
const ENOUGH = 20;         // time-to-first-token samples below which no percentile is named
const SETTLE_MS = 2500;    // from moving the slider to its number in the run's own lines
const LETTERS = "ABCDEFGH";

const controls = () => document.getElementById("load-controls");
const slider = () => document.querySelector("#load-controls input[type=range]");

/** "83rd" */
function ordinal(n) {
  const teen = n % 100 >= 11 && n % 100 <= 13;
  return `${n}${teen ? "th" : { 1: "st", 2: "nd", 3: "rd" }[n % 10] ?? "th"}`;
}

/** Which percentile `ms` is in a cumulative distribution given at 0, 5, … 100 percent. */
export function percentileOf(ms, cdf) {
  if (ms <= cdf[0]) return 0;
  const above = cdf.findIndex((value) => value >= ms);
  if (above < 0) return 100;
  const low = cdf[above - 1];
  return (5 * (above - 1 + (ms - low) / Math.max(1e-9, cdf[above] - low)));
}

const ratio = (value) => (value < 10 ? value.toFixed(1) : String(Math.round(value)));
const words = (ms) => { const { text, unit } = figure(ms * 1000); return `${text} ${unit}`; };

/** What the server itself says it holds, where it says so: " · server 32 + 12 waiting, KV 81 %" */
function atServer(server) {
  if (!server) return "";
  const kv = server.kv_usage == null ? "" : `, KV ${Math.round(100 * server.kv_usage)} %`;
  return ` · server ${server.running} + ${server.waiting} waiting${kv}`;
}

export class Load {
  /** `lanes()`: [{id, letter, slug}] of the page, [] where there are none. */
  constructor({ lanes = () => [], ended = () => {} } = {}) {
    this.lanes = lanes;
    this.ended = ended;
    this.run = "";
    this.latest = null;
    this.calm = new Map();       // backend → TTFT in ms when nothing loaded it
    this.touched = 0;            // when the slider was last moved
    this.picked = false;         // somebody has picked backends; until then they are the lanes'
    this.pressed = false;        // a control was pressed by key and has not been given a successor
    this.marks = new Map();      // lane → sentence
    this.charts = new LiveCharts(document.querySelectorAll(".chart[data-live]"), () => this.letters());
    document.addEventListener("input", (event) => this.onInput(event));
    document.addEventListener("change", (event) => this.onInput(event));
    document.body.addEventListener("htmx:afterSwap", (event) => { if (event.detail.target.id === "load-progress") this.grown(); });
    document.body.addEventListener("htmx:beforeRequest", ({ target }) => { if (target.matches("#load-controls form")) this.pressed = document.activeElement.matches(":focus-visible"); });
    document.body.addEventListener("htmx:load", (event) => { if (event.detail.elt.id === "load-controls") this.read(); });
    this.read();
  }

  /** The arena's drawer asks for its controls once the page stands, so that the first paint does not wait for them. */
  open() {
    const drawer = document.getElementById("load");
    drawer.addEventListener("toggle", () => {
      document.body.toggleAttribute("data-drawer", drawer.open);
      this.begin();
      this.charts.refresh();
    });
    return this.fetchControls();
  }

  fetchControls(after = "") {
    const query = new URLSearchParams(this.lanes().map(({ slug }) => ["backend", slug]));
    if (after) query.set("after", after);
    return window.htmx.ajax("GET", `/load/drawer/?${query}`, { target: "#load-controls", swap: "outerHTML" });
  }

  get running() { return controls()?.dataset.state === "running"; }

  /** Colours and letters: a lane's backend has the lane's, another one the next that is free. */
  letters() {
    const found = Object.fromEntries(this.lanes().map(({ slug, letter }) => [slug, letter]).reverse());
    const free = [...LETTERS].filter((letter) => !Object.values(found).includes(letter));
    for (const entry of document.querySelectorAll(".load-legend [data-letter]")) {
      found[entry.dataset.slug] ??= this.lanes().length ? free.shift() ?? entry.dataset.letter : entry.dataset.letter;
    }
    return found;
  }

  /** The controls were swapped: another run, or none. */
  read() {
    const box = controls();
    if (!box) return;
    const letters = this.letters();
    for (const entry of box.querySelectorAll(".load-legend > [data-slug]")) {
      entry.dataset.letter = letters[entry.dataset.slug];
      entry.querySelector(".letter").textContent = letters[entry.dataset.slug];
    }
    this.followLanes();
    this.syncFields(box);
    this.restoreFocus(box);
    const run = this.running ? box.dataset.run : "";
    if (run && run !== this.run) this.follow(run, box.dataset);
    if (!run) this.forgetRun();
  }

  /** The lanes may be others now: users are for their backends, unless somebody has picked some. */
  followLanes() {
    const slugs = this.lanes().map(({ slug }) => slug);
    if (this.picked || !slugs.length) return;
    const picks = document.querySelectorAll("#load-controls [name=backend]");
    for (const pick of picks) pick.checked = slugs.includes(pick.value);
    if (picks.length) this.syncFields(controls());
  }

  /** A start swaps the controls for others, a stop twice: whoever works by keyboard goes on with the first of them. */
  restoreFocus(box) {
    const next = box.querySelector("input[type=range], button");
    if (!this.pressed || !next || document.activeElement !== document.body) return;
    next.focus({ preventScroll: true });
    this.pressed = false;
  }

  follow(run, { liveUrl }) {
    this.run = run;
    this.after = 0;
    this.liveUrl = liveUrl;
    this.drawn = "";
    this.charts.rows = [];
    this.begin();
    this.poll(run);
  }

  /** Charts are drawn when they can be seen. */
  begin() {
    const box = controls();
    if (!this.run || this.drawn === this.run || !box.dataset.chartsUrl) return;
    if (document.getElementById("load")?.open === false) return;
    this.drawn = this.run;
    document.body.dataset.loading = "";
    const rows = this.charts.rows;
    this.charts.begin(box.dataset.chartsUrl, box.dataset.vega).then(() => { this.charts.rows = [...rows, ...this.charts.rows]; this.charts.refresh(); });
  }

  async poll(run) {
    if (run !== this.run) return;
    let state = "running";
    try {
      const answer = await fetch(`${this.liveUrl}?after=${this.after}`);
      if (answer.ok) {
        const news = await answer.json();
        ({ state } = news);
        this.after = news.after;
        if (run === this.run && news.lines.length) this.take(news.lines, news.doubts);
      } else if (answer.status === 404) state = "gone";
    } catch { /* the server is away; it is asked again */ }
    if (run !== this.run) return;
    if (state === "running") setTimeout(() => this.poll(run), document.hidden ? HIDDEN_POLL_MS : POLL_MS);
    else this.over();
  }

  over() {
    const { run } = this;
    this.forgetRun();
    if (document.getElementById("load")) this.fetchControls(run);
    else this.ended();
  }

  forgetRun() {
    this.run = "";
    this.latest = null;
    this.say("");
    this.doubt([]);
  }

  take(lines, doubts) {
    this.doubt(doubts);
    this.latest = lines.at(-1);
    document.getElementById("load-progress")?.dispatchEvent(new Event("load-line"));
    this.showUsers();
    this.charts.add(lines);
    const letters = this.letters();
    const said = [];
    for (const entry of document.querySelectorAll(".load-figure")) {
      if (!this.latest.backends[entry.dataset.slug]) entry.textContent = "not loaded right now"; // of a search: one at a time
    }
    for (const [slug, { ttft_p95_ms: ms, server }] of Object.entries(this.latest.backends)) {
      const text = ms == null ? "…" : words(ms);
      said.push(`${letters[slug] ?? slug} p95 ${text}`);
      const entry = document.querySelector(`.load-figure[data-slug="${CSS.escape(slug)}"]`);
      if (entry) entry.textContent = `${this.lanes().length ? "" : "TTFT "}p95 ${text}${atServer(server)}`;
    }
    const { users, rate } = this.latest;
    if (rate != null) said.unshift(`${ratio(rate)} requests/s each`);
    else if (slider()) said.unshift(`${users} user${users === 1 ? "" : "s"} each`);
    this.say(said.join(" · "));
  }

  /** Another step of a search or a sweep has ended: its chart has one point more. */
  grown() {
    const { done } = document.querySelector("#load-progress [data-done]")?.dataset ?? {};
    if (done === this.done) return;
    this.done = done;
    for (const chart of document.querySelectorAll(".chart[data-growing]")) chart.dispatchEvent(new Event("stale"));
  }

  /** The slider of a page that was opened later, or of another person's, follows the run. */
  showUsers() {
    if (!slider() || !this.running || performance.now() - this.touched < SETTLE_MS) return;
    slider().value = this.latest.rate ?? this.latest.users;
    this.syncFields(controls());
  }

  /** Why the times on show are this host's and not the servers', nothing where they are theirs. */
  doubt(reasons) {
    const line = document.getElementById("load-doubt");
    if (!line) return;
    line.hidden = !reasons.length;
    line.dataset.note = `The times are not the servers' own. ${reasons.join(" ")}`;
    line.querySelector(".sr").textContent = `. ${line.dataset.note}`;
  }

  say(text) {
    const bar = document.getElementById("load-now");
    if (bar) bar.textContent = text || "synthetic users on the same endpoints";
    document.getElementById("load")?.toggleAttribute("data-on", Boolean(text));
  }

  /** A lane has ended: keep its figure as the calm one, or say what it is among those of the users. */
  laneEnded(id, slug, ttft) {
    if (ttft == null) return;
    const now = this.latest?.backends[slug];
    const { users = 0, rate = null } = this.latest ?? {};
    if (!now || !(rate ?? users)) {
      this.calm.set(slug, ttft);
      if (this.run) return;
      this.mark(id, "");
      return;
    }
    const calm = this.calm.has(slug) ? ` · calm ${words(this.calm.get(slug))}, ×${ratio(ttft / this.calm.get(slug))}` : "";
    const all = rate == null && slider() ? `${users} user${users === 1 ? "" : "s"}` : `${now.n} requests`;
    const place = now.n < ENOUGH ? `among ${all} right now` : `the ${ordinal(Math.max(1, Math.min(99, Math.round(percentileOf(ttft, now.ttft_cdf_ms)))))} percentile of ${all} right now`;
    this.mark(id, `TTFT ${words(ttft)}, ${place}${calm}`);
  }

  mark(id, sentence) {
    this.marks.set(id, sentence);
    this.showMarks();
  }

  forget(ids) {
    for (const id of ids) this.marks.delete(id);
    this.showMarks();
  }

  /** After any swap: write the sentences into the cards that are there. */
  showMarks() {
    for (const { id } of this.lanes()) {
      const line = document.getElementById(`load-${id}`);
      const text = this.marks.get(id) ?? "";
      if (line && line.textContent !== text) line.textContent = text;
    }
  }

  onInput(event) {
    const box = event.target.closest?.("#load-controls, .load-fields");
    if (!box) return;
    if (event.target.name === "backend") this.picked = true;
    if (event.target === slider()) this.touched = performance.now();
    this.syncFields(box);
  }

  syncFields(box) {
    const out = box.querySelector("output");
    if (slider() && out) out.textContent = slider().value;
    const arrival = box.querySelector("[name=arrival]")?.value;
    box.querySelector(".load-users")?.toggleAttribute("hidden", Boolean(arrival) && arrival !== "closed");
    box.querySelector(".load-rate")?.toggleAttribute("hidden", !arrival || arrival === "closed");
    const picked = box.querySelectorAll("[name=backend]:checked");
    const words = document.getElementById("load-picked");
    if (words) words.textContent = picked.length === 1 ? picked[0].parentElement.textContent.trim() : `${picked.length || "no"} backends`;
  }
}
