// What makes the pages smoother. Every page works without it.
"use strict";

document.documentElement.classList.add("js");

// Copy buttons: <button data-copy="id"> copies the text of the element of that id.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    // No clipboard without TLS: select the text, so that one key does it.
    const range = document.createRange();
    range.selectNodeContents(source);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    button.textContent = "Press Ctrl+C";
  }
  announce(button.textContent);
  setTimeout(() => { button.textContent = said; }, 2000);
});

function announce(text) {
  const place = document.getElementById("announce");
  if (place) place.textContent = text;
}

// On a phone the tab of the page at hand may lie out of sight.
for (const tab of document.querySelectorAll(".tabs [aria-current], .top nav [aria-current]")) {
  const row = tab.parentElement;
  row.scrollLeft = tab.offsetLeft - row.offsetLeft - (row.clientWidth - tab.clientWidth) / 2;
}

// Confirmations and menus close with Escape, with their Cancel button, and when something else is clicked.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = event.target.closest?.("details[open].confirm, details[open].menu");
  if (open) shut(open, true);
});

document.addEventListener("click", (event) => {
  const cancel = event.target.closest("[data-cancel]");
  if (cancel) shut(cancel.closest("details"), true);
  for (const menu of document.querySelectorAll("details[open].menu")) {
    if (!menu.contains(event.target)) shut(menu, false);
  }
});

function shut(details, refocus) {
  details.open = false;
  if (refocus) details.querySelector("summary").focus();
}

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "1";
  // Back from the next page the form is usable again.
  setTimeout(() => { delete form.dataset.sent; }, 5000);
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// Times stay true while the page is open; the units are those of webapp/templating.py.
function relative(then) {
  const seconds = (Date.now() - then) / 1000;
  const size = Math.abs(seconds);
  if (size >= 60 * 86400) return null;
  if (size < 45) return seconds >= 0 ? "just now" : "in a moment";
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  const [unit, length] = units.find(([, length]) => size >= length * 0.99) || units[2];
  const count = Math.max(1, Math.round(size / length));
  const text = `${count} ${unit}${count === 1 ? "" : "s"}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

setInterval(() => {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = relative(Date.parse(time.dateTime));
    if (text && text !== time.textContent) time.textContent = text;
  }
}, 15000);

// <section data-live="address" data-every="seconds">: asks whether its content has changed, and shows what is new.
for (const section of document.querySelectorAll("[data-live]")) watch(section);

function watch(section) {
  const every = 1000 * Number(section.dataset.every || 5);
  let pause = every;
  let etag = null;

  async function look() {
    // Not under somebody's hands, and not where nobody looks.
    const busy = section.contains(document.activeElement) || section.querySelector("details[open]");
    if (!document.hidden && !busy && !String(getSelection())) {
      try {
        const headers = { "X-Part": "1" };
        if (etag) headers["If-None-Match"] = etag;
        const answer = await fetch(section.dataset.live, { headers, cache: "no-store", redirect: "error" });
        if (answer.status === 200) {
          etag = answer.headers.get("ETag");
          section.innerHTML = await answer.text();
        } else if (answer.status !== 304) {
          throw new Error(answer.status);
        }
        pause = every;
        section.removeAttribute("data-stale");
      } catch {
        // The service is away, or the session is over: what is shown stays, and the next tries come more rarely.
        pause = Math.min(60000, pause * 2);
        section.setAttribute("data-stale", "");
      }
    }
    setTimeout(look, pause);
  }

  setTimeout(look, pause);
}
