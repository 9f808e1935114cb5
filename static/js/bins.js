// Deltas counted into pixel columns, each once: a frame of the race strip then costs columns, not tokens.

export class Bins {
  constructor() { this.key = ""; }

  /** Count the lane's new deltas into columns; start over when the axis has changed. */
  update(lane, width, end) {
    const key = `${width} ${end} ${lane.zero}`;
    if (key !== this.key || lane !== this.lane) {
      Object.assign(this, { key, lane, done: 0, answer: new Uint16Array(width + 1), thought: new Uint16Array(width + 1) });
    }
    const scale = width / end;
    for (; this.done < lane.at.length; this.done += 1) {
      const x = ((lane.at[this.done] - lane.zero) * scale) | 0;
      if (x < 0 || x > width) continue;
      const bins = lane.kind[this.done] === "c" ? this.answer : this.thought;
      if (lane.kind[this.done] !== "t" && bins[x] < 65535) bins[x] += 1;
    }
  }
}
