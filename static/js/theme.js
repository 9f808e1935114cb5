// Applies the stored theme before the first paint, so it is a classic script in <head>; the toggle is wired when the page is there.
(() => {
  const THEMES = ["auto", "dark", "light"];
  const WORDS = { auto: "Theme: as the system", dark: "Theme: dark", light: "Theme: light" };
  const root = document.documentElement;

  function stored() {
    try {
      const value = localStorage.getItem("theme");
      return THEMES.includes(value) ? value : "auto";
    } catch {
      return "auto"; // storage can be forbidden; the page works without
    }
  }

  function apply(theme) {
    root.dataset.theme = theme;
    const word = document.getElementById("theme-word");
    if (word) word.textContent = WORDS[theme];
  }

  function cycle() {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
    try { localStorage.setItem("theme", next); } catch { /* kept for this page only */ }
    apply(next);
  }

  apply(stored());
  document.addEventListener("DOMContentLoaded", () => {
    apply(root.dataset.theme);
    document.getElementById("theme-toggle")?.addEventListener("click", cycle);
  });
})();
