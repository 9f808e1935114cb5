// The four charts of a load run while it goes on. Rows come in twice a second; one chart is drawn per display frame.

import { draw, LETTERS, onTheme } from "./charts.js";

const WINDOW_S = 120;
const APART = 0.06;        // of a line's length: lines that end together keep their letters apart (chartlanes.py)
const MOST_POINTS = 150;   // per backend: older rows are thinned, so that an hour's run costs what a minute's does

export class LiveCharts {
  /** `boxes`: elements with data-live; `letters()`: {backend: letter} of the moment. */
  constructor(boxes, letters) {
    this.boxes = [...boxes];
    this.letters = letters;
    this.views = new Map();
    this.rows = [];
    this.specs = null;
    this.queue = [];
    onTheme(() => this.specs && this.show());
  }

  /** Begin with a run: its specifications, no rows. */
  async begin(chartsUrl, vegaUrl) {
    this.rows = [];
    this.vegaUrl = vegaUrl;
    const answer = await fetch(chartsUrl);
    if (!answer.ok) return;
    this.specs = await answer.json();
    this.boxes[0].closest(".live-charts").hidden = false;
    await this.show();
  }

  async show() {
    this.dispose();
    for (const box of this.boxes) {
      const height = box.clientHeight || undefined;
      const spec = this.specs[box.dataset.live];
      this.showKeys(box.parentElement.querySelectorAll("[data-field]"), spec.usermeta.fields);
      const view = await draw(box, spec, { url: this.vegaUrl, letters: this.letters(), height });
      this.views.set(box, view);
      box.dataset.drawn = "";
    }
    this.refresh();
  }

  dispose() {
    for (const view of this.views.values()) view.finalize();
    this.views.clear();
  }

  /** Add live lines as the server wrote them. */
  add(lines) {
    for (const { t_s: t, backends } of lines) {
      for (const [backend, figures] of Object.entries(backends)) {
        const { ttft_cdf_ms: _, ...rest } = figures;
        this.rows.push({ t, backend, ...rest });
      }
    }
    const last = this.rows.at(-1)?.t ?? 0;
    this.rows = this.rows.filter((row) => row.t >= last - WINDOW_S);
    this.refresh();
  }

  get shown() {
    const times = [...new Set(this.rows.map((row) => row.t))];
    if (times.length <= MOST_POINTS) return this.rows;
    const step = Math.ceil(times.length / MOST_POINTS);
    const keep = new Set(times.filter((_, i) => (times.length - 1 - i) % step === 0));
    return this.rows.filter((row) => keep.has(row.t));
  }

  /** Of many backends not every field is drawn, and what is dashed beside another one is not alone. */
  showKeys(keys, dashed) {
    for (const key of keys) {
      key.hidden = !(key.dataset.field in dashed);
      key.classList.toggle("dashed", Boolean(dashed[key.dataset.field]));
    }
  }

  /** Of each backend a copy of one of its `rows`, towards the end of its lines, with its letter. A copy, for the library
   * takes a row that it knows for one that is as it was. */
  lettered(rows) {
    const letters = this.letters();
    return Object.keys(letters).flatMap((backend) => {
      const line = rows.filter((row) => row.backend === backend);
      if (!line.length) return [];
      const at = Math.round((line.length - 1) * Math.max(0, 1 - APART * (LETTERS.indexOf(letters[backend]) + 0.5)));
      return { ...structuredClone(line[at]), letter: letters[backend] };
    });
  }

  refresh() {
    const idle = this.queue.length === 0;
    this.queue = [...this.views.values()];
    if (idle && this.queue.length) requestAnimationFrame(() => this.next(this.shown, this.lettered(this.shown)));
  }

  next(rows, lettered) {
    const view = this.queue.shift();
    if (view && this.boxes[0].offsetParent !== null) view.data("live", rows).data("letters", lettered).runAsync();
    if (this.queue.length) requestAnimationFrame(() => this.next(rows, lettered));
  }
}
