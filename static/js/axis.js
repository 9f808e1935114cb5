// The race strip's time axis: its length grows by round steps and glides from one to the next. Pure numbers, no drawing.

const STEPS_S = [0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 3600];
const FULL = 0.94;      // past this share of the axis the next step is taken
const GLIDE_MS = 180;

export class Axis {
  constructor({ still = false } = {}) {
    this.still = still;  // reduced motion: no gliding
    this.reset();
  }

  reset() {
    this.end = STEPS_S[1] * 1e6;   // µs at the right edge now
    this.from = this.end;
    this.goal = this.end;
    this.since = 0;
  }

  /** Make room for `time` µs while a run is under way. */
  reach(time, now) {
    const step = STEPS_S.find((s) => s * 1e6 * FULL > time) ?? STEPS_S.at(-1);
    this.aim(Math.max(step * 1e6, this.goal), now);
  }

  /** The run is over: its last moment is the right edge. */
  fit(time, now) { this.aim(Math.max(time, 1000), now); }

  aim(goal, now) {
    if (goal === this.goal) return;
    this.from = this.end;
    this.goal = goal;
    this.since = now;
  }

  /** Advance to the browser's `now` ms. True while gliding. */
  glide(now) {
    const share = this.still ? 1 : Math.min(1, (now - this.since) / GLIDE_MS);
    this.end = this.from + (this.goal - this.from) * (1 - (1 - share) ** 3);
    return share < 1 && this.from !== this.goal;
  }

  /** Distance of two labels in µs so that no more than `most` fit. */
  tick(most) {
    const rough = this.goal / Math.max(1, most);
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((m) => m * power).find((t) => t >= rough);
  }
}

/** A moment or a length of time in words: "94 ms", "0.41 s", "7.5 s". */
export function words(us) {
  const { text, unit } = figure(us);
  return `${text} ${unit}`;
}

/** The same as {text, unit}: three significant digits, ms below a second; the server's `time_text` rounds alike. */
export function figure(us) {
  if (us == null) return { text: "n/a", unit: "" };
  if (us < 9_995) return { text: (us / 1000).toFixed(2), unit: "ms" };
  if (us < 99_950) return { text: (us / 1000).toFixed(1), unit: "ms" };
  if (us < 999_500) return { text: String(Math.round(us / 1000)), unit: "ms" };
  if (us < 9_995_000) return { text: (us / 1e6).toFixed(2), unit: "s" };
  return { text: (us / 1e6).toFixed(1), unit: "s" };
}

/** A count as the server's `count_text` writes it: "2059", "12 059", "1.1e15". */
export function countWords(value) {
  if (value >= 1e7) return value.toExponential(1).replace("+", "");
  return value < 9_999.5 ? String(Math.round(value)) : Math.round(value).toLocaleString("en").replaceAll(",", "\u2009");
}

/** The label of a tick. */
export function tickWords(us, tick) {
  if (us === 0) return "0";
  if (tick < 1e6 && us < 1e6) return `${Math.round(us / 1000)} ms`;
  return `${(us / 1e6).toFixed(tick < 1e5 ? 2 : tick < 1e6 ? 1 : 0)} s`;
}
