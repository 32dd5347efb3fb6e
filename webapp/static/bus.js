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

// The client that was chosen on the page of a token is chosen on the next one too.
for (const choice of document.querySelectorAll(".client-tabs > input")) {
  try {
    if (localStorage.getItem("client") === choice.value) choice.checked = true;
    choice.addEventListener("change", () => localStorage.setItem("client", choice.value));
  } catch { /* not stored */ }
}

// A text that does not fit is in the tooltip as a whole.
document.addEventListener("mouseover", (event) => {
  const cut = event.target.closest?.(".subject, .route, .about, .place, .switcher > summary span");
  if (!cut || cut.title || cut.scrollWidth <= cut.clientWidth) return;
  const whole = cut.cloneNode(true);
  for (const part of whole.querySelectorAll(".avatar, .visually-hidden")) part.remove();
  cut.title = squeeze(whole.textContent);
});

// Scroll the current tab and the open row into view.
for (const tab of document.querySelectorAll(".subtabs [aria-current]")) {
  const row = tab.parentElement;
  row.scrollLeft = tab.offsetLeft - row.offsetLeft - (row.clientWidth - tab.clientWidth) / 2;
}
const openRow = document.querySelector(".pane-list .current");
if (openRow) openRow.parentElement.parentElement.scrollTop = openRow.offsetTop - 120;

// A refused form: its first error has the focus, and the title of the page begins with it.
const firstError = document.querySelector("[aria-invalid=true], form .alert.error");
if (firstError) {
  document.title = `Error: ${document.title}`;
  if (!firstError.matches("input, select, textarea")) firstError.tabIndex = -1;
  firstError.focus();
}

// Submit a form once, even if its button is pressed repeatedly.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || form.matches("[data-inline]")) return;
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

// What is shown is as old as the last answer: say so while the server does not answer or the session is over.
let lastAnswerAt = new Date();
function showConnection(state) {
  const bar = document.getElementById("connection");
  if (state === "live") lastAnswerAt = new Date();
  if (!bar || bar.dataset.state === state) return;
  bar.dataset.state = state;
  bar.className = `connection ${state === "live" ? "" : state}`;
  if (state === "lost") bar.textContent = `Connection lost. This page shows ${clockTime.format(lastAnswerAt)}. Reconnecting…`;
  else bar.textContent = "";
  const over = document.querySelector("[data-over]");
  if (state === "over" && over) bar.textContent = over.dataset.over;
  else if (state === "over") {
    const link = document.createElement("a");
    link.href = location.href;
    link.textContent = "Sign in again";
    bar.append("You are signed out; this page no longer updates. ", link);
  }
}
addEventListener("offline", () => { if (document.querySelector("[data-live], #live-board")) showConnection("lost"); });

// The number of unanswered handoffs: in the navigation, the title and the icon of the page.
function showInbox(header) {
  if (!header) return;
  const [unanswered, overdue] = header.split(" ").map(Number);
  const text = unanswered >= 100 ? "99+" : String(unanswered);
  for (const badge of document.querySelectorAll("[data-inbox]")) {
    badge.hidden = !unanswered;
    const number = badge.querySelector("[data-inbox-count]");
    if (number.textContent !== text) number.textContent = text;
  }
  const title = (unanswered ? `(${text}) ` : "") + document.title.replace(/^\(\d+\+?\) /, "");
  if (title !== document.title) document.title = title;
  const icon = document.getElementById("favicon");
  const href = overdue ? icon.dataset.overdue : unanswered ? icon.dataset.waiting : icon.dataset.none;
  if (icon.getAttribute("href") !== href) icon.href = href;
}

// Change the content of an element to `next`. What has the focus, is typed, selected or opened stays so.
function morph(current, next) {
  Idiomorph.morph(current, next, {
    morphStyle: "innerHTML",
    ignoreActiveValue: true,
    callbacks: {
      beforeAttributeUpdated: (name, node) =>
        !(name === "open" && node.tagName === "DETAILS") && !(name === "title" && node.tagName === "TIME"),
      beforeNodeMorphed: (node, other) => {
        // Input that was changed is kept.
        if (node.matches?.("textarea, input:not([type=hidden])") && node.value !== node.defaultValue) return false;
        // A tick of the clock is no news.
        return !(node.tagName === "TIME" && node.dateTime === other.dateTime);
      },
    },
  });
  updateTimes(current);
}

// <section data-live="address" data-every="seconds">: polls the address and updates itself where it changed. Rows of
// [data-rows] that are new wait behind a button, and rows that left the list stay where they are, so nothing moves while
// it is read.
for (const section of document.querySelectorAll("[data-live]")) startPolling(section);

function startPolling(section) {
  const interval = 1000 * Number(section.dataset.every || 5);
  let delay = interval;
  let etag = null;
  let timer = 0;
  let latest = "";

  async function poll() {
    clearTimeout(timer);
    try {
      const headers = { "X-Part": "1" };
      if (etag) headers["If-None-Match"] = etag;
      const response = await fetch(section.dataset.live, { headers, cache: "no-store", redirect: "manual" });
      if (response.type === "opaqueredirect" || response.status === 401 || response.status === 404) {
        section.setAttribute("data-stale", "");
        showConnection("over");
        return;
      }
      if (response.status === 200) {
        etag = response.headers.get("ETag");
        latest = await response.text();
        update();
      } else if (response.status !== 304) {
        throw new Error(response.status);
      }
      showInbox(response.headers.get("X-Inbox"));
      delay = interval;
      section.removeAttribute("data-stale");
      showConnection("live");
    } catch {
      // Keep the content and poll less often.
      delay = Math.min(60000, delay * 2);
      section.setAttribute("data-stale", "");
      showConnection("lost");
    }
    // In the background the title still counts.
    timer = setTimeout(poll, document.hidden ? Math.max(delay, 30000) : delay);
  }

  function update() {
    const next = document.createElement("template");
    next.innerHTML = latest;
    let heldCount = 0;
    for (const list of next.content.querySelectorAll("[data-rows]")) {
      const current = section.querySelector("[data-rows]");
      if (current) heldCount += holdRows(current, list);
    }
    const before = section.querySelector("[data-announce]")?.textContent;
    morph(section, next.content);
    const after = section.querySelector("[data-announce]")?.textContent;
    // The live region is outside of the part, so that it speaks only if the text differs.
    if (after && squeeze(after) !== squeeze(before || "")) announce(squeeze(after));
    showPill(section, heldCount, () => {
      const all = document.createElement("template");
      all.innerHTML = latest;
      morph(section, all.content);
      section.scrollIntoView({ block: "start" });
      section.querySelector("[data-rows] a")?.focus();
    });
  }

  section.addEventListener("poll", poll);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !bar().startsWith("over")) poll(); });
  addEventListener("online", poll);
  timer = setTimeout(poll, delay);
}

function squeeze(text) {
  return text.replace(/\s+/g, " ").trim();
}

function bar() {
  return document.getElementById("connection")?.dataset.state || "";
}

// Order the rows of `list`, a newer version, as in `current`: without new rows, and with those that left it.
function holdRows(current, list) {
  const newer = new Map([...list.querySelectorAll(":scope > [data-key]")].map((row) => [row.dataset.key, row]));
  const known = [...current.children];
  const heldCount = newer.size - known.filter((row) => newer.has(row.dataset.key)).length;
  const reply = list.querySelector(".reply-form");
  if (!known.length || (!heldCount && known.filter((row) => row.dataset.key).length === newer.size) || reply) return 0;
  const rows = known.map((row) => {
    const next = newer.get(row.dataset.key);
    if (next) return next;
    const kept = row.cloneNode(true);
    if (kept.dataset.key) kept.classList.add("gone");
    return kept;
  });
  list.replaceChildren(...rows);
  return heldCount;
}

function showPill(section, count, apply) {
  let pill = section.previousElementSibling?.matches(".pill") ? section.previousElementSibling : null;
  if (!count) {
    pill?.remove();
    return;
  }
  if (!pill) {
    pill = document.createElement("button");
    pill.type = "button";
    pill.className = "pill";
    section.before(pill);
  }
  const text = `${count} new`;
  if (pill.textContent !== text) {
    pill.textContent = text;
    announce(text);
  }
  pill.onclick = () => { pill.remove(); apply(); };
}

// Buttons of a form with data-inline act in place: the row says so, and the list updates itself.
document.addEventListener("submit", async (event) => {
  const button = event.submitter;
  if (!event.target.matches("[data-inline]") || !button?.formAction) return;
  event.preventDefault();
  delete event.target.dataset.sent;
  const row = button.closest("[data-key]");
  button.disabled = true;
  try {
    const response = await fetch(button.formAction, {
      method: "POST", body: new FormData(event.target), headers: { "X-Part": "1" }, redirect: "manual",
    });
    if (response.status !== 204) throw new Error(response.status);
    announce("Acknowledged.");
    nextRow(row, 1)?.querySelector(".item-link")?.focus();
    row?.classList.add("gone");
    button.remove();
    document.querySelector("[data-live]")?.dispatchEvent(new Event("poll"));
  } catch {
    // The page of the server says what went wrong.
    button.disabled = false;
    event.target.removeAttribute("data-inline");
    event.target.requestSubmit(button);
  }
});

// Single-key shortcuts; they can be turned off in their list.
const KEYS_OFF = "keyboard-off";
const KEYBOARD_HELP = `<h2 id="keyboard-title">Keyboard shortcuts</h2>
  <dl class="keys">
    <dt><kbd>j</kbd> <kbd>k</kbd></dt><dd>Next and previous row</dd>
    <dt><kbd>Enter</kbd></dt><dd>Open the row</dd>
    <dt><kbd>e</kbd></dt><dd>Acknowledge</dd>
    <dt><kbd>r</kbd></dt><dd>Reply</dd>
    <dt><kbd>/</kbd> <kbd>Ctrl K</kbd></dt><dd>Search, or go to a page</dd>
    <dt><kbd>t</kbd></dt><dd>Exact or relative times; also a click on a time</dd>
    <dt><kbd>?</kbd></dt><dd>This list</dd>
  </dl>
  <div class="checkbox"><input type="checkbox" id="keyboard-on"><label for="keyboard-on">Single-key shortcuts</label></div>
  <form method="dialog"><button class="button">Close</button></form>`;
let keyboardHelp = null;
if (!document.body.classList.contains("visitor")) {
  keyboardHelp = document.createElement("dialog");
  keyboardHelp.className = "dialog";
  keyboardHelp.setAttribute("aria-labelledby", "keyboard-title");
  keyboardHelp.innerHTML = KEYBOARD_HELP;
  document.body.append(keyboardHelp);
}

function currentRow() {
  return document.activeElement?.closest("[data-key]") || null;
}

function nextRow(row, step) {
  const rows = [...document.querySelectorAll("main [data-rows] > [data-key]")].filter((one) => one.offsetParent !== null);
  if (!rows.length) return null;
  const current = document.querySelector("[data-rows] > .current");
  const from = rows.indexOf(row || current);
  return rows[from < 0 ? (step > 0 ? 0 : rows.length - 1) : from + step] || null;
}

const SHORTCUTS = {
  j: () => moveTo(1),
  k: () => moveTo(-1),
  e: () => (currentRow() || document.querySelector(".pane-main") || document).querySelector("[data-ack]")?.click(),
  r: () => {
    const reply = (currentRow() || document).querySelector("[data-reply]") || document.querySelector("[data-reply]");
    if (reply?.matches("a")) reply.click();
    else reply?.focus();
  },
  t: () => toggleExactTimes(),
  "/": () => document.querySelector("[data-palette]")?.click(),
  "?": () => keyboardHelp?.showModal(),
};

function moveTo(step) {
  const link = nextRow(currentRow(), step)?.querySelector(".item-link, a");
  link?.focus();
  link?.closest("[data-key]").scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  const action = SHORTCUTS[event.key];
  const typing = event.target.closest?.("input, select, textarea, dialog, [contenteditable]");
  if (!action || typing || event.ctrlKey || event.metaKey || event.altKey || isKeyboardOff()) return;
  event.preventDefault();
  action();
});

function isKeyboardOff() {
  try { return localStorage.getItem(KEYS_OFF) === "1"; } catch { return false; }
}

if (keyboardHelp) {
  const toggle = document.getElementById("keyboard-on");
  toggle.checked = !isKeyboardOff();
  toggle.addEventListener("change", () => { try { localStorage.setItem(KEYS_OFF, toggle.checked ? "" : "1"); } catch { /* not stored */ } });
  document.addEventListener("click", (event) => { if (event.target.closest("[data-keyboard-help]")) keyboardHelp.showModal(); });
}
