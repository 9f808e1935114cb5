// Charts: the server's Vega-Lite specifications in the page's own colours. The library is fetched when the first chart is
// drawn; it evaluates no text as code (`ast`), as the policy demands.

export const LETTERS = "ABCDEFGH";
const ERRORS = 1;          // Vega's log level: a chart that waits for its first row is no warning
let library = null;

/** Load the drawing library once; `url` is the server's, on this origin. */
export function prepare(url) {
  library ??= import(url).then(() => globalThis.vegaEmbed);
  return library;
}

function colours() {
  const probe = document.createElement("span");
  probe.className = "probe";
  document.body.append(probe);
  const read = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  const found = {
    ink: read("ink"), muted: read("ink-muted"), line: read("line"), ground: read("surface"),
    lanes: [...LETTERS].map((letter) => read(`lane-${letter.toLowerCase()}-line`)),
  };
  probe.remove();
  return found;
}

function config({ ink, muted, line, ground, lanes }) {
  return {
    font: getComputedStyle(document.body).fontFamily,
    background: null,
    range: { category: lanes },
    title: { color: ink, fontSize: 13 },
    view: { stroke: null },
    legend: { orient: "top", columns: 2, labelLimit: 260, labelColor: ink, labelFontSize: 12, symbolStrokeWidth: 2.5, symbolBaseFillColor: ink },
    axis: { labelColor: muted, titleColor: muted, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 11, titleFontSize: 12, gridOpacity: 1, domainOpacity: 1, tickOpacity: 1 },
    text: { fill: ink },
    style: { letter: { color: ground } },
    rule: { stroke: muted },
  };
}

/** The specification with the page's width, and its colours where `letters` ({backend: letter}) or the order gives them. */
function fitted(spec, lanes, { letters, height, legend = true }) {
  const copy = structuredClone(spec);
  const recolour = (node) => {
    if (node === null || typeof node !== "object") return;
    for (const [channel, entry] of Object.entries(node)) {
      if (entry?.field === "backend" && entry.scale?.domain) {
        if (!legend) entry.legend = null;
        if (channel !== "strokeDash") entry.scale.range = entry.scale.domain.map((slug, i) => lanes[letters ? LETTERS.indexOf(letters[slug]) : i] ?? lanes[i % lanes.length]);
      }
      recolour(entry);
    }
  };
  recolour({ encoding: copy.encoding, layer: copy.layer });
  delete copy.$schema;     // names a version to compare with, nothing else
  delete copy.config;
  delete copy.title;       // stands above in HTML
  return { ...copy, width: "container", height: height ?? copy.height, autosize: { type: "fit", contains: "padding" } };
}

/**
 * Draw `spec` into `element` and return its view. Wishes: `url` of the library, `letters` ({backend: lane}) where a lane's
 * colour is a backend's, `height` in px, `legend` false where the page has its own.
 */
export async function draw(element, spec, wishes) {
  const embed = await prepare(wishes.url);
  const found = colours();
  const options = { mode: "vega-lite", renderer: "canvas", ast: true, actions: false, defaultStyle: false, tooltip: false, hover: false, logLevel: ERRORS, config: config(found) };
  const { view } = await embed(element, fitted(spec, found.lanes, wishes), options);
  return view;
}

/** Call `redraw` when the theme changes. */
export function onTheme(redraw) {
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

/** A result's charts: each is fetched and drawn when it comes into view, and again when it is told that it is stale. */
export function drawStored(boxes) {
  const drawn = new Map();
  const show = async (box) => {
    const spec = drawn.get(box) ?? (await (await fetch(box.dataset.spec)).json());
    if (!spec.data.values.length) return;  // a search or a sweep that has just begun
    drawn.set(box, spec);
    await draw(box, spec, { url: box.dataset.vega, legend: box.dataset.legend !== "page" });
    box.dataset.drawn = "";
  };
  const watch = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      show(target);
    }
  }, { rootMargin: "200px" });
  for (const box of boxes) {
    watch.observe(box);
    box.addEventListener("stale", () => { drawn.delete(box); show(box); });
  }
  onTheme(() => [...drawn.keys()].forEach(show));
}
