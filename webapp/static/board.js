// The live board: asks whether it has changed, and puts in place only what is another than it was.
"use strict";

(() => {
  const board = document.getElementById("live-board");
  if (!board) return;
  const state = document.getElementById("live-state").firstElementChild;
  const pause = document.getElementById("live-pause");
  const say = document.getElementById("live-say");
  const every = 1000 * Number(board.dataset.every);
  let mark = `"${board.dataset.mark}"`;
  let wait = every;
  let timer = 0;
  let asking = false;
  let pressed = false;
  // How far this computer's clock is from the service's.
  let ahead = 0;
  let spoken = 0;
  const toSay = [];

  function show(text, kind) {
    if (state.textContent !== text) state.textContent = text;
    state.className = `badge dot ${kind}`;
  }

  async function look() {
    clearTimeout(timer);
    if (asking || document.hidden || pause.ariaPressed === "true") return;
    if (pressed) {
      // A link that is being clicked stays where it is.
      timer = setTimeout(look, 300);
      return;
    }
    asking = true;
    try {
      const answer = await fetch(board.dataset.url, {
        headers: { "X-Part": "1", "If-None-Match": mark }, cache: "no-store", redirect: "manual",
      });
      if (answer.status === 200) {
        mark = answer.headers.get("ETag");
        take(await answer.text());
      } else if (answer.status !== 304) {
        throw new Error(answer.type === "opaqueredirect" || answer.status === 404 ? "out" : "away");
      }
      wait = every;
      show("live", "good");
    } catch (error) {
      // What is shown stays; the next look finds everything that happened meanwhile.
      wait = Math.min(30000, wait * 1.7);
      if (error.message === "out") show("signed out: reload the page", "bad");
      else show("out of touch, trying again", "warn");
    }
    asking = false;
    timer = setTimeout(look, wait);
  }

  function take(html) {
    const next = document.createElement("template");
    next.innerHTML = html;
    for (const panel of next.content.querySelectorAll(".panel")) {
      const mine = board.querySelector(`.panel[data-key="${panel.dataset.key}"]`);
      if (said(mine) !== said(panel)) put(mine, panel);
    }
    tell();
    tick();
  }

  // What stood there keeps the focus, and what is new or has come further is marked for a moment.
  function put(mine, panel) {
    const known = new Map([...mine.querySelectorAll("li[data-key]")].map((item) => [item.dataset.key, plain(item)]));
    const focused = mine.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    for (const item of panel.querySelectorAll("li[data-key]:not(.none)")) {
      if (known.get(item.dataset.key) === item.className) continue;
      item.classList.add("fresh");
      setTimeout(() => item.classList.remove("fresh"), 2500);
      if (item.dataset.say) toSay.push(item.dataset.say);
    }
    mine.replaceChildren(...panel.childNodes);
    if (focused) [...mine.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
  }

  function plain(item) {
    return [...item.classList].filter((name) => name !== "fresh").join(" ");
  }

  // A panel without what runs by itself: times, bars, and the mark of what is new.
  function said(panel) {
    const copy = panel.cloneNode(true);
    for (const time of copy.querySelectorAll("time[data-ago], [data-left]")) time.textContent = "";
    for (const bar of copy.querySelectorAll("progress")) bar.removeAttribute("value");
    for (const item of copy.querySelectorAll("li")) item.className = plain(item);
    return copy.innerHTML.replace(/\s+/g, " ");
  }

  function tell() {
    if (!say.checked) toSay.length = 0;
    if (!toSay.length || Date.now() - spoken < 4000) return;
    spoken = Date.now();
    const news = toSay.splice(0);
    announce(news.length > 3 ? `${news.length} handoffs changed. ${news.at(-1)}` : news.join(". "));
  }

  function duration(seconds) {
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
  }

  // Every second the leases run down, by the service's clock.
  function tick() {
    const now = Date.now() - ahead;
    for (const place of board.querySelectorAll("[data-left]")) {
      const left = Math.max(0, Math.ceil((Date.parse(place.dataset.left) - now) / 1000));
      const words = left ? `${duration(left)} left` : "over";
      if (place.textContent !== words) place.textContent = words;
    }
    for (const bar of board.querySelectorAll("progress[data-until]")) {
      bar.value = Math.max(0, (Date.parse(bar.dataset.until) - now) / 1000);
    }
  }

  ahead = Date.now() - Date.parse(board.querySelector(".live-grid").dataset.now);

  pause.addEventListener("click", () => {
    const paused = pause.ariaPressed !== "true";
    pause.ariaPressed = String(paused);
    if (paused) {
      clearTimeout(timer);
      show("paused", "");
    } else {
      look();
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else look();
  });
  board.addEventListener("pointerdown", () => { pressed = true; });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { pressed = false; });
  addEventListener("online", look);
  addEventListener("pageshow", (event) => { if (event.persisted) look(); });
  setInterval(() => { tick(); tell(); }, 1000);
  show("live", "good");
  tick();
  timer = setTimeout(look, every);
})();
