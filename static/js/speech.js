// What is being spoken while a talk is translated: the words so far of the sentence that the lanes are waiting for.
// Sentences and their times are the page's own (the prompt box, the run message); nothing here is measured.

const LOOK_MS = 120;

export class Speech {
  constructor(recording) {
    this.recording = recording;
    this.timer = 0;
  }

  /** Speak along with the run that has just begun; does nothing where nothing is spoken. */
  start() {
    this.stop();
    this.sentences = Array.from(document.querySelectorAll(".steps-list span"), (node) => node.textContent);
    if (this.recording.due.some(Boolean)) this.timer = setInterval(() => this.show(), LOOK_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
  }

  show() {
    const line = document.querySelector(".verdict-wait");
    if (!line) return;
    line.classList.add("spoken");
    const text = spoken(this.sentences, this.recording.due, this.recording.now());
    if (line.textContent !== text) line.textContent = text;
  }
}

/** The part of the sentences that has been spoken at `now` µs, whole words of the current one. */
export function spoken(sentences, due, now) {
  const k = due.findIndex((end) => end > now);
  if (k < 0) return sentences.at(-1) ?? "";
  const from = due[k - 1] ?? 0;
  const words = (sentences[k] ?? "").split(" ");
  const count = Math.ceil((words.length * (now - from)) / Math.max(1, due[k] - from));
  return words.slice(0, count).join(" ");
}
