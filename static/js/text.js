// Streaming text: plain text nodes, appended once per display frame, at the end of what is there. Never HTML.
// A long answer is cut into blocks, so that a frame lays out the last block only: at the ends of its lines, and where a
// text has none for long, at a place where the browser had wrapped it anyway. Blocks are kept in chapters, so that a frame
// passes by what is long written without looking at each block: the hundredth thousand characters cost what the first did.

import { nextFrame } from "./frames.js";

const BLOCK_CHARS = 800;
const CHAPTER_BLOCKS = 5;
const FRAME_CHARS = 16000; // per lane and frame: a backlog from a hidden tab is caught up without a long frame
const NEAR_END = 24;       // px: about a line
const UPWARD = new Set(["ArrowUp", "PageUp", "Home"]);
const DOWNWARD = new Set(["ArrowDown", "PageDown", "End", " "]);
const HAND_FRAMES = 60;    // a second of display frames: longer than a turn of the wheel or a key glides

function append(host, name) {
  const element = document.createElement("span");
  element.className = name;
  host.append(element);
  return element;
}

class Writer {
  constructor(host) {
    this.host = host;
    this.length = 0;
    this.open();
  }

  open() {
    if (!this.chapter || this.chapter.childElementCount === CHAPTER_BLOCKS) this.chapter = append(this.host, "chapter");
    this.node = document.createTextNode("");
    append(this.chapter, "block").append(this.node);
    this.length = 0;
  }

  write(text) {
    let rest = text;
    while (this.length + rest.length > BLOCK_CHARS) {
      const cut = rest.indexOf("\n", Math.max(0, BLOCK_CHARS - this.length)) + 1;
      if (!cut) break;
      this.node.appendData(rest.slice(0, cut));
      rest = rest.slice(cut);
      this.open();
    }
    this.node.appendData(rest);
    this.length += rest.length;
  }

  get overlong() { return this.length > 2 * BLOCK_CHARS; }

  /** Where the last line on the screen begins. Reads the layout, writes nothing. */
  lastLine() {
    const range = document.createRange();
    const topOf = (i) => {
      range.setStart(this.node, i);
      range.setEnd(this.node, i + 1);
      return range.getBoundingClientRect().top;
    };
    let high = this.node.length - 1;
    let low = 0;
    const last = topOf(high) - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (topOf(middle) >= last) high = middle; else low = middle + 1;
    }
    return low;
  }

  cut(at) {
    const rest = this.node.data.slice(at);
    if (!at || rest.length > BLOCK_CHARS) return; // a box too narrow to cut, or hidden
    this.node.deleteData(at, rest.length);
    this.open();
    this.node.data = rest;
    this.length = rest.length;
  }
}

/** Cut the blocks that have grown too long. All reads come before all writes: one layout, however many lanes. */
export function trim(texts) {
  const writers = texts.map((text) => text.current).filter((writer) => writer?.overlong);
  const cuts = writers.map((writer) => writer.lastLine());
  writers.forEach((writer, i) => writer.cut(cuts[i]));
}

/** One lane's running text inside `host`: thinking apart from the answer, one section per step. */
export class LaneText {
  constructor(host, steps = 1) {
    this.host = host;
    this.steps = steps;
    this.reset();
  }

  reset() {
    this.host.replaceChildren();
    this.queue = [];        // [kind, step, text], neighbours of one kind joined
    this.current = null;    // the writer of the newest text
    this.step = -1;
    this.thinking = null;
    this.answer = null;
  }

  push(kind, text, step) {
    const last = this.queue.at(-1);
    if (last && last[0] === kind && last[1] === step) last[2] += text;
    else this.queue.push([kind, step, text]);
  }

  get pending() { return this.queue.length > 0; }

  flush(budget = FRAME_CHARS) {
    let left = budget;
    while (this.queue.length && left > 0) {
      const entry = this.queue[0];
      const part = entry[2].slice(0, left);
      this.current = this.writer(entry[0], entry[1]);
      this.current.write(part);
      left -= part.length;
      if (part.length === entry[2].length) this.queue.shift();
      else entry[2] = entry[2].slice(part.length);
    }
    if (this.thinking) this.thinking.box.scrollTop = this.thinking.box.scrollHeight;
  }

  writer(kind, step) {
    if (step !== this.step) this.beginStep(step);
    if (kind === "r") return (this.thinking ??= this.beginThinking()).writer;
    if (!this.answer) this.answer = this.beginAnswer();
    return this.answer;
  }

  beginStep(step) {
    this.step = step;
    this.thinking = null;
    this.answer = null;
    this.section = this.host;
    if (this.steps < 2) return;
    this.section = document.createElement("section");
    this.section.className = "step";
    const label = document.createElement("h3");
    label.className = "step-label";
    label.textContent = stepLabel(step);
    this.section.append(label);
    this.host.append(this.section);
  }

  beginThinking() {
    const details = document.createElement("details");
    details.className = "thinking live";
    details.open = true;
    const summary = document.createElement("summary");
    summary.textContent = "Thinking";
    const box = document.createElement("div");
    box.className = "plain";
    details.append(summary, box);
    this.section.append(details);
    return { details, box, writer: new Writer(box) };
  }

  beginAnswer() {
    if (this.thinking) { // the window on its thinking closes when the answer begins, unless someone is reading there
      const { details } = this.thinking;
      if (!details.matches(":hover, :focus-within")) details.open = false;
      this.thinking = null;
    }
    const box = document.createElement("div");
    box.className = "plain";
    this.section.append(box);
    return new Writer(box);
  }
}

/** The step's name as the prompt box lists it, so that nothing changes when the server's rendering arrives. */
function stepLabel(step) {
  return document.querySelectorAll(".steps-list b")[step]?.textContent || `Step ${step + 1}`;
}

/**
 * Keeps a scroller at its end until the person scrolls up, however little, and again once they come back to the end. Their
 * hand and the text move in different threads: what they reach is the end that was on their screen when they set out, and a
 * text that grows fast has another by the time the page hears of it.
 */
export class Follow {
  constructor(scroller) {
    this.scroller = scroller;
    this.on = true;
    this.settled = false;
    this.top = 0;    // where the scroller was last seen or put
    this.ends = [];  // the text's heights at the last frames' ends, oldest first
    this.down = 0;   // for how many frames more what a hand has set going downward may glide on
    scroller.addEventListener("scroll", () => this.moved(), { passive: true });
    scroller.addEventListener("keydown", ({ key }) => this.pressed(key));
    scroller.addEventListener("wheel", ({ deltaY }) => { this.down = deltaY > 0 ? HAND_FRAMES : 0; }, { passive: true });
    scroller.addEventListener("pointerdown", () => { this.down = 0; });
    new ResizeObserver(() => { if (this.on && this.settled) this.settle(); }).observe(scroller);
  }

  /** A key scrolls by gliding: held to its end meanwhile, the scroller would not set out. */
  pressed(key) {
    if (UPWARD.has(key)) {
      this.down = 0;
      if (this.top > 0) this.on = false;
    } else if (DOWNWARD.has(key)) {
      this.down = HAND_FRAMES;
    }
    if (key === "End") this.on = true; // whichever end it is by the time the glide is there
  }

  moved() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const below = (height) => height - scrollTop - clientHeight;
    const left = scrollTop < this.top - 1 && !this.down; // a glide to an older end, held at the new one, falls back to it
    if (left) this.on = below(scrollHeight) < 1; // a text grown shorter is at its end still
    else if (scrollTop > this.top + 1) this.on ||= below(Math.min(scrollHeight, ...this.ends)) < NEAR_END;
    this.top = scrollTop;
  }

  /** Follow the end of another text, which takes this one's place for a while. Returns the place to `go` back to. */
  leave() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const place = { on: this.on, end: scrollHeight - scrollTop - clientHeight < 2, top: scrollTop };
    this.on = true;
    return place;
  }

  go({ on, end, top }) {
    this.on = on;
    this.ends = []; // they were the other text's
    this.scroller.scrollTop = end ? this.scroller.scrollHeight : top;
    this.top = this.scroller.scrollTop;
  }

  settle() {
    this.settled = true;
    this.ends.push(this.scroller.scrollHeight);
    if (this.ends.length > HAND_FRAMES) this.ends.shift();
    this.down = Math.max(0, this.down - 1);
    if (!this.on) return;
    this.scroller.scrollTop = this.ends.at(-1);
    this.top = this.scroller.scrollTop;
  }
}

/** All lanes of the page. `recording` is the truth: a lane whose box was swapped is written again from it. */
export class TextPane {
  constructor(recording) {
    this.recording = recording;
    this.lanes = new Map();   // id → {text, follow, host, written}
    this.follows = new Map(); // id → Follow, of ended lanes too
    this.timer = 0;
    this.work = () => this.frame();
    document.addEventListener("visibilitychange", () => this.wake());
  }

  /** Bind to the boxes that are on the page now. A final answer is the server's: it is left alone. */
  bind() {
    for (const id of [...this.lanes.keys()]) if (!this.recording.lanes.has(id)) this.lanes.delete(id);
    for (const [id, lane] of this.recording.lanes) {
      const host = document.getElementById(`answer-${id}`);
      const bound = this.lanes.get(id);
      if (!host) { this.lanes.delete(id); continue; }
      const follow = this.follow(id, host.closest(".lane-text"));
      if (host.hasAttribute("data-final")) {
        this.lanes.delete(id);
        if (bound || !follow.settled) follow.settle();
        continue;
      }
      if (bound && bound.host === host && bound.lane === lane) continue;
      follow.on = true;
      this.lanes.set(id, { lane, host, follow, text: new LaneText(host, lane.steps), written: 0 });
    }
    this.wake();
  }

  /** What keeps a lane's box at its end; anew where the box was swapped. */
  follow(id, scroller) {
    let follow = this.follows.get(id);
    if (follow?.scroller !== scroller) this.follows.set(id, follow = new Follow(scroller));
    return follow;
  }

  wake() {
    if (!document.hidden) nextFrame(this.work);
    // A hidden page gets no frames: a slow timer keeps the text moving there.
    else this.timer ||= setTimeout(() => { this.timer = 0; this.frame(); }, 250);
  }

  frame() {
    let more = false;
    for (const bound of this.lanes.values()) {
      const { lane, text } = bound;
      for (; bound.written < lane.at.length; bound.written += 1) {
        const i = bound.written;
        if (lane.kind[i] !== "t") text.push(lane.kind[i], lane.text[i], lane.step[i]);
      }
      if (text.pending) text.flush();
      more ||= text.pending;
    }
    for (const bound of this.lanes.values()) bound.follow.settle(); // after all writes: one layout per frame
    trim(Array.from(this.lanes.values(), (bound) => bound.text));   // changes no height
    if (more) this.wake();
  }
}
