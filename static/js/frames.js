// One request for the next display frame, however many want to work in it: each request costs the browser time.

const due = new Set();

/** Call `work` in the next frame, once, however often it is asked for until then. */
export function nextFrame(work) {
  if (!due.size) requestAnimationFrame(run);
  due.add(work);
}

function run() {
  const works = [...due];
  due.clear();
  for (const work of works) work();
}
