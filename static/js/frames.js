// One request for the next display frame, however many want to work in it: each request costs the browser time.

const BEHIND_MS = 25;       // two frames further apart than this: the machine does not keep up with its display

const due = new Map();      // work → whether it may wait
let last = 0;
let waited = false;

/** Call `work` in the next frame, once, however often it is asked for until then. Patient work lets the rest go first:
    where the display is behind it is done in every other frame only. */
export function nextFrame(work, { patient = false } = {}) {
  if (!due.size) requestAnimationFrame(run);
  due.set(work, patient);
}

function run(at) {
  waited = at - last > BEHIND_MS && !waited;
  last = at;
  const works = [...due];
  due.clear();
  for (const [work, patient] of works) {
    if (patient && waited) nextFrame(work, { patient });
    else work();
  }
}
