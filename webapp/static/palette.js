// The palette: the page of searches as a dialog, by Ctrl-K, "/" or the link in the header.
"use strict";

const paletteLink = document.querySelector("[data-palette]");
const DELAY_MS = 120;
let palette = null;
let lastRequest = 0;
let typing = 0;

function buildPalette() {
  const dialog = document.createElement("dialog");
  dialog.className = "palette";
  dialog.setAttribute("aria-label", "Search");
  dialog.innerHTML = `<form role="search"><input type="search" name="q" maxlength="200" autocomplete="off" spellcheck="false"
    aria-label="Search" placeholder="A word, ADR-49, PR-142, task 17, #184, a name"></form>
    <div class="palette-results"></div>
    <p class="palette-keys muted small" aria-hidden="true"><kbd>↑</kbd> <kbd>↓</kbd> choose <kbd>Enter</kbd> open <kbd>Esc</kbd> close</p>`;
  const form = dialog.querySelector("form");
  form.action = paletteLink.href;
  form.q.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => showResults(dialog), DELAY_MS);
  });
  // Enter in the field opens the first result, or the page of all results while there is none yet.
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const first = dialog.dataset.shown === form.q.value ? dialog.querySelector(".results a") : null;
    location.href = first ? first.href : searchUrl(form.q.value);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    const stops = [form.q, ...dialog.querySelectorAll(".results a")];
    const next = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    stops[(next + stops.length) % stops.length].focus();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  return dialog;
}

function searchUrl(text) {
  const url = new URL(paletteLink.href);
  if (text) url.searchParams.set("q", text);
  return url.href;
}

async function showResults(dialog) {
  const text = dialog.querySelector("input").value;
  const request = ++lastRequest;
  const results = dialog.querySelector(".palette-results");
  try {
    const response = await fetch(searchUrl(text), { headers: { "X-Part": "1" }, redirect: "manual" });
    if (request !== lastRequest) return;
    if (response.status !== 200) throw new Error(response.status);
    results.innerHTML = await response.text();
    dialog.dataset.shown = text;
    const count = results.querySelectorAll(".results a").length;
    announce(text ? `${count} result${count === 1 ? "" : "s"}` : "");
  } catch {
    if (request === lastRequest) results.textContent = "Search is unavailable. Press Enter to open the search page.";
  }
}

function openPalette() {
  palette = palette || buildPalette();
  if (palette.open) return;
  palette.showModal();
  palette.querySelector("input").select();
  showResults(palette);
}

if (paletteLink && window.HTMLDialogElement) {
  paletteLink.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openPalette();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    event.preventDefault();
    openPalette();
  });
}
