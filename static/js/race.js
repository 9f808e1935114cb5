// The race strip: every lane's request, first token, deltas and finish on one time axis, on a canvas, at display rate.
// A frame costs the same at 20 and at 3,000 tokens a second: deltas are counted into pixel columns once, see bins.js.

import { Axis, tickWords, words } from "./axis.js";
import { Bins } from "./bins.js";
import { nextFrame } from "./frames.js";

const LETTERS = "ABCDEFGH";
/** Line pattern per letter, in px: the second way, beside colour, to tell lanes apart. The same as --lane-dash in tokens.css. */
const PATTERNS = [[], [10, 4], [2, 3], [10, 3, 2, 3], [18, 4], [5, 5], [14, 3, 2, 3, 2, 3], [1, 5]];
const HEAD = 22;          // px, axis labels
const FUTURE = 0.22;      // opacity of what comes after the moment shown in a replay

const reduced = matchMedia("(prefers-reduced-motion: reduce)");

export class RaceStrip {
  /** `rows()` gives the lanes to draw, also before any run: [{id, letter, label}]. */
  constructor(canvas, recording, rows) {
    this.canvas = canvas;
    this.c = canvas.getContext("2d", { alpha: false });  // what is opaque is cheaper to put under the rest of the page
    this.recording = recording;
    this.rows = rows;
    this.axis = new Axis({ still: reduced.matches });
    this.bins = new Map();
    this.moment = null;      // µs shown by a replay, null = all there is
    this.frame = () => this.draw();
    this.probe = document.createElement("span");
    this.probe.className = "probe";
    canvas.after(this.probe);
    new ResizeObserver(() => this.resize()).observe(canvas);
    new MutationObserver(() => this.restyle()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.restyle());
    reduced.addEventListener("change", () => { this.axis.still = reduced.matches; });
    this.restyle();
  }

  restyle() {
    const colour = (name) => { this.probe.style.color = `var(--${name})`; return getComputedStyle(this.probe).color; };
    this.ink = colour("ink");
    this.muted = colour("ink-muted");
    this.faint = colour("line");
    this.paper = colour("surface");
    this.danger = colour("danger");
    this.lane = [...LETTERS].map((letter) => colour(`lane-${letter.toLowerCase()}-line`));
    this.chip = [...LETTERS].map((letter) => colour(`lane-${letter.toLowerCase()}`));
    this.chipInk = [...LETTERS].map((letter) => colour(`lane-${letter.toLowerCase()}-ink`));
    this.font = getComputedStyle(document.body).fontFamily;
    this.labels = new Map(); // what fits of each label, see clipped
    this.wake();
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas;
    const ratio = window.devicePixelRatio || 1;
    const scale = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16; // the page's own, see layout.css
    this.width = clientWidth / scale;
    this.height = clientHeight / scale;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.ratio = ratio * scale;
    this.draw();
  }

  reset() {
    this.axis.reset();
    this.bins.clear();
    this.wake();
  }

  wake() { nextFrame(this.frame, { patient: true }); } // text goes first

  draw() {
    if (!this.width) return;
    const now = performance.now();
    const { recording, axis } = this;
    const edge = recording.running ? recording.now() : recording.length();
    const limit = recording.budget * 1.06;  // the limit is in sight however early the lanes are done
    if (recording.running) axis.reach(Math.max(edge, recording.length(), limit), now);
    else if (recording.lanes.size) axis.fit(Math.max(recording.length(), limit), now);
    const gliding = axis.glide(now);
    this.paint(edge);
    if (recording.running || gliding) this.wake();
  }

  paint(edge) {
    const rows = this.rows();
    const wide = this.width >= 700;
    this.left = this.width >= 1000 ? 200 : wide ? 150 : 34;
    this.plot = Math.max(50, Math.floor(this.width - this.left - (wide ? 96 : 74)));
    this.row = rows.length ? (this.height - HEAD) / rows.length : 0;
    const { c } = this;
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.imageSmoothingEnabled = false;
    c.fillStyle = this.paper;
    c.fillRect(0, 0, this.width, this.height);
    this.drawAxis();
    this.drawSpeech();
    this.drawBudget();
    rows.forEach((row, i) => {
      const y = HEAD + this.row * (i + 0.5);
      this.drawName(row, y, wide);
      const lane = this.recording.lanes.get(row.id);
      if (lane) this.drawLane(lane, LETTERS.indexOf(row.letter), y, edge);
    });
    if (this.moment !== null) this.drawMoment();
  }

  x(us) { return this.left + (us / this.axis.end) * this.plot; }

  type(px, weight = 400) { this.c.font = `${weight} ${px}px ${this.font}`; }

  drawAxis() {
    const { c } = this;
    const tick = this.axis.tick(Math.max(2, Math.floor(this.plot / 110)));
    this.type(12);
    c.textBaseline = "middle";
    c.textAlign = "center";
    c.lineWidth = 1;
    c.setLineDash([]);
    for (let us = 0; us <= this.axis.end * 1.0001; us += tick) {
      const x = Math.round(this.x(us)) + 0.5;
      c.strokeStyle = this.faint;
      c.beginPath();
      c.moveTo(x, HEAD - 4);
      c.lineTo(x, this.height);
      c.stroke();
      if (this.moment !== null && Math.abs(x - this.x(this.moment)) < 60) continue; // the moment's own label goes there
      c.fillStyle = this.muted;
      c.fillText(tickWords(us, tick), x, 9);
    }
  }

  /** Where each sentence has been spoken: what follows it on a lane is its caption, what lies between is the lag. */
  drawSpeech() {
    const { c } = this;
    c.fillStyle = this.muted;
    for (const us of this.recording.due) {
      const x = Math.round(this.x(us));
      if (!us || x > this.left + this.plot) continue;
      c.globalAlpha = 0.55;
      for (let y = HEAD; y < this.height; y += 5) c.fillRect(x, y, 1, 2);
      c.globalAlpha = 1;
      c.beginPath();
      c.moveTo(x - 4, HEAD - 7);
      c.lineTo(x + 5, HEAD - 7);
      c.lineTo(x + 0.5, HEAD);
      c.fill();
    }
  }

  /** The instant by which an answer has to begin. */
  drawBudget() {
    const { c } = this;
    const { budget } = this.recording;
    const x = Math.round(this.x(budget)) + 0.5;
    if (!budget || x > this.left + this.plot) return;
    c.strokeStyle = this.ink;
    c.lineWidth = 1.5;
    c.setLineDash([6, 3]);
    c.beginPath();
    c.moveTo(x, 18);
    c.lineTo(x, this.height);
    c.stroke();
    c.setLineDash([]);
    if (this.moment !== null && Math.abs(x - this.x(this.moment)) < 80) return;
    const text = `limit ${words(budget)}`;
    this.type(12, 600);
    const wide = c.measureText(text).width + 8;
    c.fillStyle = this.paper;
    c.fillRect(x - wide / 2, 0, wide, 17);
    c.fillStyle = this.ink;
    c.textAlign = "center";
    c.fillText(text, x, 9);
  }

  drawName({ letter, label }, y, wide) {
    const { c } = this;
    const i = LETTERS.indexOf(letter);
    const size = Math.min(18, this.row - 4);
    c.fillStyle = this.chip[i];
    c.beginPath();
    c.roundRect(4, y - size / 2, size, size, 3);
    c.fill();
    c.fillStyle = this.chipInk[i];
    c.textAlign = "center";
    this.type(12, 700);
    c.fillText(letter, 4 + size / 2, y + 0.5);
    if (!wide) return;
    c.textAlign = "left";
    c.fillStyle = this.muted;
    this.type(12);
    c.fillText(this.clipped(label, this.left - 44), 30, y + 0.5);
  }

  /** `label`, shortened to `width` px. Measured once: it is drawn in every frame. */
  clipped(label, width) {
    const key = `${width} ${label}`;
    if (!this.labels.has(key)) this.labels.set(key, clip(this.c, label, width));
    return this.labels.get(key);
  }

  drawLane(lane, i, y, edge) {
    const start = lane.states.find((s) => s.state !== "waiting")?.at;
    if (start === undefined) return;
    const from = start - lane.zero;
    const last = lane.end ? lane.end.at - lane.zero : Math.max(from, this.recording.running ? edge : lane.at.at(-1) ?? from);
    this.drawWait(lane, i, y, from, last);
    this.drawDeltas(lane, i, y);
    if (lane.steps > 1) this.drawSteps(lane, y);
    if (lane.firstText !== null) this.dimmed(lane.firstText - lane.zero, (at) => this.drawFirst(at, i, y));
    if (lane.end) this.dimmed(last, (at) => this.drawEnd(lane, i, y, at));
  }

  /** The patterned line of the wait from the request to the first text, then a hairline to where the lane is now. */
  drawWait(lane, i, y, from, to) {
    const { c } = this;
    const edge = this.left + this.plot;
    const first = lane.firstText === null ? to : lane.firstText - lane.zero;
    c.strokeStyle = this.lane[i];
    c.lineWidth = 2;
    c.setLineDash(PATTERNS[i]);
    c.beginPath();
    c.moveTo(this.x(from), y);
    c.lineTo(Math.min(this.x(first), edge), y);
    c.stroke();
    c.setLineDash([]);
    c.globalAlpha = 0.4;
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(Math.min(this.x(first), edge), y);
    c.lineTo(Math.min(this.x(to), edge), y);
    c.stroke();
    c.globalAlpha = 1;
    c.lineWidth = 2;
    c.beginPath();
    c.moveTo(this.x(from), y - 5);
    c.lineTo(this.x(from), y + 5);
    c.stroke();
  }

  drawDeltas(lane, i, y) {
    let bins = this.bins.get(lane.id);
    if (bins?.lane !== lane || bins.width !== this.plot) this.bins.set(lane.id, (bins = new Bins(lane, this.plot)));
    bins.update(this.axis.end);
    const tall = Math.max(8, this.row * 0.68);
    this.drawRow(bins.thought, i, y, tall * 0.42);
    this.drawRow(bins.answer, i, y, tall);
  }

  /** Draw a mark, faint when it lies after the moment shown. */
  dimmed(at, draw) {
    this.c.globalAlpha = this.moment !== null && at > this.moment ? FUTURE : 1;
    draw(at);
    this.c.globalAlpha = 1;
  }

  /** The row's image, stretched to `tall` px; what comes after the moment shown is faint. */
  drawRow(row, i, y, tall) {
    if (row.empty) return;
    const { c } = this;
    const image = row.image(this.lane[i]);
    const cut = this.moment === null ? image.width : Math.min(Math.ceil((this.moment / this.axis.end) * this.plot), image.width);
    const draw = (from, to) => to > from && c.drawImage(image, from, 0, to - from, 1, this.left + from, y - tall / 2, to - from, tall);
    draw(0, cut);
    c.globalAlpha = FUTURE;
    draw(cut, image.width);
    c.globalAlpha = 1;
  }

  /** A bar where each step but the first began. */
  drawSteps(lane, y) {
    const { c } = this;
    const seen = new Set();
    c.fillStyle = this.ink;
    for (const { at, step } of lane.states) {
      if (!step || seen.has(step)) continue;
      seen.add(step);
      c.fillRect(this.x(at - lane.zero) - 0.75, y - this.row / 2 + 2, 1.5, this.row - 4);
    }
  }

  drawFirst(at, i, y) {
    const { c } = this;
    c.beginPath();
    c.arc(this.x(at), y, Math.min(5, this.row / 4), 0, 2 * Math.PI);
    c.fillStyle = this.paper;
    c.fill();
    c.strokeStyle = this.lane[i];
    c.lineWidth = 2.5;
    c.stroke();
  }

  /** The finish: a flag for done, a square for stopped, a cross for failed; beside it the time. */
  drawEnd(lane, i, y, at) {
    const { c } = this;
    const x = this.x(at);
    const r = Math.min(6, this.row / 4);
    const tone = lane.failed ? this.danger : this.lane[i];
    c.strokeStyle = tone;
    c.fillStyle = tone;
    c.lineWidth = 2;
    c.beginPath();
    if (lane.failed) {
      c.moveTo(x, y - r); c.lineTo(x + 2 * r, y + r); c.moveTo(x + 2 * r, y - r); c.lineTo(x, y + r);
      c.stroke();
    } else if (lane.state === "stopped") {
      c.fillRect(x + 1, y - r, 2 * r, 2 * r);
    } else {
      c.moveTo(x + 1, y + this.row * 0.38); c.lineTo(x + 1, y - this.row * 0.38);
      c.lineTo(x + 11, y - this.row * 0.38 + 4); c.lineTo(x + 1, y - this.row * 0.38 + 8);
      c.stroke();
      c.fill();
    }
    this.drawTook(words(lane.took), x + 17, y);
  }

  /** On paper of its own, also where it is faint: the line of a limit may pass there. */
  drawTook(text, x, y) {
    const { c } = this;
    const { globalAlpha } = c;
    this.type(14, 600);
    c.globalAlpha = 1;
    c.fillStyle = this.paper;
    c.fillRect(x - 3, y - 8, c.measureText(text).width + 6, 16);
    c.globalAlpha = globalAlpha;
    c.textAlign = "left";
    c.fillStyle = this.ink;
    c.fillText(text, x, y + 0.5);
  }

  drawMoment() {
    const { c } = this;
    const x = Math.round(this.x(this.moment)) + 0.5;
    c.strokeStyle = this.ink;
    c.lineWidth = 1.5;
    c.setLineDash([]);
    c.beginPath();
    c.moveTo(x, 16);
    c.lineTo(x, this.height);
    c.stroke();
    const text = words(this.moment);
    this.type(12, 700);
    const wide = c.measureText(text).width + 12;
    const at = Math.min(Math.max(x - wide / 2, this.left - 20), this.width - wide);
    c.fillStyle = this.ink;
    c.beginPath();
    c.roundRect(at, 0, wide, 18, 4);
    c.fill();
    c.fillStyle = this.paper;
    c.textAlign = "center";
    c.fillText(text, at + wide / 2, 9.5);
  }
}

function clip(c, text, width) {
  if (c.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && c.measureText(`${text.slice(0, end)}…`).width > width) end -= 1;
  return `${text.slice(0, end).trimEnd()}…`;
}
