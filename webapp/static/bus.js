// Progressive enhancement. Every page works without this script.
"use strict";

document.documentElement.classList.add("js");

// Copy buttons: <button data-copy="id"> copies the text of the element with that id.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    // Browsers offer no clipboard without TLS: select the text instead.
    const range = document.createRange();
    range.selectNodeContents(source);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    button.textContent = "Press Ctrl+C";
  }
  announce(button.textContent);
  setTimeout(() => { button.textContent = label; }, 2000);
});

function announce(text) {
  const region = document.getElementById("announce");
  if (region) region.textContent = text;
}

// Scroll the current tab into view on narrow screens.
for (const tab of document.querySelectorAll(".tabs [aria-current], .site-header nav [aria-current]")) {
  const row = tab.parentElement;
  row.scrollLeft = tab.offsetLeft - row.offsetLeft - (row.clientWidth - tab.clientWidth) / 2;
}

// Confirmations and menus close with Escape and with their Cancel button; menus also on a click elsewhere.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = event.target.closest?.("details[open].confirm, details[open].menu");
  if (open) closeDetails(open, true);
});

document.addEventListener("click", (event) => {
  const cancel = event.target.closest("[data-cancel]");
  if (cancel) closeDetails(cancel.closest("details"), true);
  for (const menu of document.querySelectorAll("details[open].menu")) {
    if (!menu.contains(event.target)) closeDetails(menu, false);
  }
});

function closeDetails(details, refocus) {
  details.open = false;
  if (refocus) details.querySelector("summary").focus();
}

// Submit a form once, even if its button is pressed repeatedly.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "1";
  // Allow another try if no response arrives.
  setTimeout(() => { delete form.dataset.sent; }, 5000);
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// Relative times stay current; the units are those of webapp/templating.py.
function formatRelativeTime(then) {
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
    const text = formatRelativeTime(Date.parse(time.dateTime));
    if (text && text !== time.textContent) time.textContent = text;
  }
}, 15000);

// <section data-live="address" data-every="seconds">: polls the address and replaces the content when it changed.
for (const section of document.querySelectorAll("[data-live]")) startPolling(section);

function startPolling(section) {
  const interval = 1000 * Number(section.dataset.every || 5);
  let delay = interval;
  let etag = null;

  async function poll() {
    // Not while the section has the focus, an open confirmation or selected text.
    const isBusy = section.contains(document.activeElement) || section.querySelector("details[open]");
    if (!document.hidden && !isBusy && !String(getSelection())) {
      try {
        const headers = { "X-Part": "1" };
        if (etag) headers["If-None-Match"] = etag;
        const response = await fetch(section.dataset.live, { headers, cache: "no-store", redirect: "error" });
        if (response.status === 200) {
          etag = response.headers.get("ETag");
          section.innerHTML = await response.text();
        } else if (response.status !== 304) {
          throw new Error(response.status);
        }
        delay = interval;
        section.removeAttribute("data-stale");
      } catch {
        // The server is unavailable or the session ended: keep the content and poll less often.
        delay = Math.min(60000, delay * 2);
        section.setAttribute("data-stale", "");
      }
    }
    setTimeout(poll, delay);
  }

  setTimeout(poll, delay);
}
