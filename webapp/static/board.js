// The live board: hears when it has changed, and puts in place only what is another than it was.
"use strict";

(() => {
  const board = document.getElementById("live-board");
  if (!board) return;
  const state = document.getElementById("live-state").firstElementChild;
  const pause = document.getElementById("live-pause");
  const say = document.getElementById("live-say");
  const every = 1000 * Number(board.dataset.every);
  let mark = board.dataset.mark;
  let source = null;
  let held = null;
  let dead = 0;
  let wait = every;
  let timer = 0;
  let tries = 0;
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

  // The service sends the board whenever it has changed. What is missed while nothing is open comes with the next.
  function listen() {
    quiet();
    if (document.hidden || paused()) return;
    source = new EventSource(`${board.dataset.url}stream?mark=${encodeURIComponent(mark)}`);
    source.onopen = () => show("live", "good");
    source.onmessage = (event) => {
      if (pressed) {
        // A link that is being clicked stays where it is.
        held = event;
        return;
      }
      heard();
      mark = event.lastEventId;
      take(event.data);
      show("live", "good");
    };
    source.addEventListener("still", () => { heard(); show("live", "good"); });
    source.addEventListener("away", () => { heard(); show("out of touch, trying again", "warn"); });
    source.onerror = () => {
      // It opens itself again, unless it was refused.
      if (source.readyState === EventSource.CLOSED) fallBack();
      else setTimeout(() => { if (source && source.readyState !== EventSource.OPEN) fallBack(); }, 3000);
    };
    heard(4000);
  }

  // Nothing at all for so long: something between keeps the stream back, or the line is dead.
  function heard(patience = 25000) {
    clearTimeout(dead);
    dead = setTimeout(fallBack, patience);
  }

  function quiet() {
    clearTimeout(timer);
    clearTimeout(dead);
    source?.close();
    source = null;
  }

  function fallBack() {
    quiet();
    tries = 0;
    look();
  }

  // Without a stream the board is asked for, now and then; after a while the stream is tried again.
  async function look() {
    clearTimeout(timer);
    if (asking || source || document.hidden || paused()) return;
    asking = true;
    try {
      const answer = await fetch(board.dataset.url, {
        headers: { "X-Part": "1", "If-None-Match": `"${mark}"` }, cache: "no-store", redirect: "manual",
      });
      if (answer.status === 200) {
        const html = await answer.text();
        mark = answer.headers.get("ETag").replaceAll('"', "");
        take(html);
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
    tries += 1;
    timer = setTimeout(tries % 40 === 0 ? listen : look, wait);
  }

  function paused() {
    return pause.getAttribute("aria-pressed") === "true";
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
    pause.setAttribute("aria-pressed", String(!paused()));
    if (paused()) {
      quiet();
      show("paused", "");
    } else {
      listen();
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) quiet();
    else listen();
  });
  board.addEventListener("pointerdown", () => { pressed = true; });
  for (const end of ["pointerup", "pointercancel"]) {
    addEventListener(end, () => {
      pressed = false;
      if (held && source) source.onmessage(held);
      held = null;
    });
  }
  addEventListener("online", listen);
  addEventListener("pagehide", quiet);
  addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
  setInterval(() => { tick(); tell(); }, 1000);
  tick();
  listen();
})();
