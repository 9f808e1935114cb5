// The settings' one-line summary follows the fields while its panel is open or shut.

function sentence(form) {
  const value = (name) => form.elements[name]?.value.trim() ?? "";
  const on = (name) => form.elements[name]?.checked;
  return [
    value("max_tokens") ? `${value("max_tokens")} tokens${on("full_length") ? " exactly" : " at most"}` : "any length",
    value("temperature") ? `temperature ${value("temperature")}` : "default temperature",
    value("top_p") && `top-p ${value("top_p")}`,
    value("seed") && `seed ${value("seed")}`,
    on("cold") ? "cold prompt" : "warm prompt",
    value("order") === "sequential" ? "one after the other" : "in parallel",
    value("system") && "system prompt",
  ].filter(Boolean).join(" · ");
}

function summarise() {
  const form = document.getElementById("prompt-form");
  const words = document.getElementById("settings-words");
  if (form && words) words.textContent = sentence(form);
}

export function watch() {
  summarise();
  document.addEventListener("input", (event) => { if (event.target.closest?.(".settings")) summarise(); });
  document.addEventListener("click", (event) => {       // a click elsewhere closes the panel
    for (const panel of document.querySelectorAll("details.settings[open], details.steps[open], details.picks[open]")) {
      if (!panel.contains(event.target)) panel.open = false;
    }
  });
}

/** After the prompt box was swapped. */
export const refresh = summarise;
