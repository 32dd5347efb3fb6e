// Times in the viewer's time zone, and confirmations and menus that close as one expects.
"use strict";

// Relative times stay current; the units are those of bus/rules/text_format.py.
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

function formatAge(then) {
  const seconds = (Date.now() - then) / 1000;
  const size = Math.abs(seconds);
  const found = [[86400, "d"], [3600, "h"], [60, "min"]].find(([length]) => size >= length);
  const text = found ? `${Math.floor(size / found[0])} ${found[1]}` : seconds >= 0 ? "now" : "1 min";
  return seconds < 0 ? `in ${text}` : text;
}

// The exact time, which the tooltip shows, is in the viewer's time zone.
const exactTime = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
});
const clockTime = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
});

const dayTime = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const minuteTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

// The key t or a click on a time shows all times of the page as dates: a tooltip needs a mouse.
let showsExact = false;

function formatExact(then, kind) {
  if (kind !== "short") return exactTime.format(then);
  const isToday = new Date(then).toDateString() === new Date().toDateString();
  return (isToday ? "" : `${dayTime.format(then)}\n`) + minuteTime.format(then);
}

function toggleExactTimes() {
  showsExact = !showsExact;
  document.documentElement.classList.toggle("exact-times", showsExact);
  updateTimes();
  announce(showsExact ? "Exact times" : "Relative times");
}

document.addEventListener("click", (event) => {
  if (event.target.closest("time[data-ago]") && !event.target.closest("a, button, summary, label")) toggleExactTimes();
});

function updateTimes(root = document) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const then = Date.parse(time.dateTime);
    const kind = time.dataset.ago;
    const text = kind && showsExact ? formatExact(then, kind)
      : kind === "short" ? formatAge(then) : kind ? formatRelativeTime(then)
      : "clock" in time.dataset ? clockTime.format(then) : null;
    if (text && text !== time.textContent) time.textContent = text;
    const title = exactTime.format(then);
    if (time.title !== title) time.title = title;
  }
}
updateTimes();
setInterval(updateTimes, 15000);

// A confirmation is a dialog above the page; without this script it opens in its place.
document.addEventListener("click", (event) => {
  const summary = event.target.closest("details.confirm > summary");
  if (!summary) return;
  event.preventDefault();
  openConfirmation(summary);
});

function openConfirmation(summary) {
  const content = summary.nextElementSibling;
  const dialog = document.createElement("dialog");
  dialog.className = "dialog confirmation";
  dialog.setAttribute("closedby", "any");
  dialog.setAttribute("aria-labelledby", "confirmation-title");
  content.firstElementChild.id = "confirmation-title";
  const home = summary.parentElement;
  // A list that updates itself may replace what stays in it, but not what is open here.
  dialog.append(content);
  document.body.append(dialog);
  dialog.addEventListener("click", (event) => { if (event.target.closest("[data-cancel]")) dialog.close(); });
  dialog.addEventListener("close", () => {
    content.firstElementChild.removeAttribute("id");
    if (summary.nextElementSibling === null) home.append(content);
    dialog.remove();
    (summary.isConnected ? summary : document.getElementById("main")).focus();
  });
  dialog.showModal();
  // What is destroyed needs a decision: the name to type, else the way back.
  content.querySelector("input:not([type=hidden]), [data-cancel]")?.focus();
}

// Menus close with Escape and on a click elsewhere.
document.addEventListener("keydown", (event) => {
  const open = event.key === "Escape" && event.target.closest?.("details[open].menu");
  if (!open) return;
  open.open = false;
  open.querySelector("summary").focus();
});

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details[open].menu")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
