// One polite live region. Sentences that come close together are read as one; tokens are never announced.
const GATHER_MS = 400;
let waiting = [];
let timer = 0;

/** Say a sentence to people who listen to the page. */
export function announce(sentence) {
  waiting.push(sentence);
  if (timer) return;
  timer = setTimeout(() => {
    document.getElementById("announcer").textContent = waiting.join(" ");
    waiting = [];
    timer = 0;
  }, GATHER_MS);
}
