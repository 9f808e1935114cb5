// Deltas counted into pixel columns, each once, and kept as an image one pixel high: a column's opacity says how many
// came in it. A frame of the race strip then costs one stretched image, not tokens, and not columns either.

const FULL_AT = 4;          // deltas in a column that make it opaque
const FAINTEST = 0.7;       // opacity of a column with one delta

class Row {
  constructor(width, strength) {
    this.counts = new Uint16Array(width);
    this.mask = new ImageData(width, 1);       // black; only its opacity is written
    this.strength = strength * 255;
    this.canvas = document.createElement("canvas");
    this.canvas.width = width;
    this.canvas.height = 1;
    this.c = this.canvas.getContext("2d", { willReadFrequently: true }); // kept where it is written, not on a GPU
    this.clear();
  }

  clear() {
    this.counts.fill(0);
    this.empty = true;
    this.from = 0;           // columns whose opacity is to be written: from, …, to
    this.to = this.counts.length - 1;
  }

  add(x) {
    if (this.counts[x] < 65535) this.counts[x] += 1;
    this.empty = false;
    this.from = Math.min(this.from, x);
    this.to = Math.max(this.to, Math.min(x + 2, this.counts.length - 1));
  }

  opacity(x) {
    const { counts } = this;
    if (counts[x]) return FAINTEST + (1 - FAINTEST) * (Math.min(counts[x], FULL_AT) - 1) / (FULL_AT - 1);
    const lone = counts[x - 1] && !counts[x - 2];
    return lone ? FAINTEST / 2 : 0;            // a lone tick is half a pixel wider: it must be seen from afar
  }

  /** The row in `colour`, up to date. */
  image(colour) {
    if (this.to < 0 && colour === this.colour) return this.canvas;
    for (let x = this.from; x <= this.to; x += 1) this.mask.data[4 * x + 3] = this.strength * this.opacity(x);
    this.from = this.counts.length;
    this.to = -1;
    this.colour = colour;
    this.c.putImageData(this.mask, 0, 0);
    this.c.globalCompositeOperation = "source-in";
    this.c.fillStyle = colour;
    this.c.fillRect(0, 0, this.canvas.width, 1);
    return this.canvas;
  }
}

export class Bins {
  /** Of one lane on a strip of `width` columns. */
  constructor(lane, width) {
    Object.assign(this, { lane, width, key: "", done: 0 });
    this.answer = new Row(width + 2, 1);
    this.thought = new Row(width + 2, 0.75);
  }

  /** Count the lane's new deltas into columns; start over when the axis has changed. */
  update(end) {
    const { lane, width } = this;
    const key = `${end} ${lane.zero}`;
    if (key !== this.key) {
      Object.assign(this, { key, done: 0 });
      this.answer.clear();
      this.thought.clear();
    }
    const scale = width / end;
    for (; this.done < lane.at.length; this.done += 1) {
      const kind = lane.kind[this.done];
      const x = ((lane.at[this.done] - lane.zero) * scale) | 0;
      if (kind === "t" || x < 0 || x > width) continue;
      (kind === "c" ? this.answer : this.thought).add(x);
    }
  }
}
