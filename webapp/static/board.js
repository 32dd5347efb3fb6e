// The live board: receives changes over server-sent events and replaces only the panels that changed.
"use strict";

(() => {
  const board = document.getElementById("live-board");
  if (!board) return;
  const status = document.getElementById("live-state").firstElementChild;
  const pauseButton = document.getElementById("live-pause");
  const fullScreenButton = document.getElementById("live-full");
  const announceToggle = document.getElementById("live-say");
  const stillMotion = matchMedia("(prefers-reduced-motion: reduce)");
  // How long a handoff travels, in milliseconds.
  const FLIGHT_MS = 1100;
  const pollInterval = 1000 * Number(board.dataset.every);
  const RECONNECT_AFTER_POLLS = 40;
  let version = board.dataset.mark;
  let source = null;
  let deferredEvent = null;
  let timeoutTimer = 0;
  let pollDelay = pollInterval;
  let pollTimer = 0;
  let pollCount = 0;
  let isPolling = false;
  let isPointerDown = false;
  // Difference between this computer's clock and the server's, in milliseconds.
  let clockOffset = 0;
  let lastAnnouncedAt = 0;
  const pendingAnnouncements = [];

  function showStatus(text, kind) {
    if (kind === "good") showConnection("live");
    else if (kind === "warn") showConnection("lost");
    else if (kind === "bad") showConnection("over");
    if (status.textContent !== text) status.textContent = text;
    status.className = `badge dot ${kind}`;
  }

  // The server sends the whole board after each change, so a client that was disconnected misses nothing.
  function openStream() {
    disconnect();
    if (document.hidden || isPaused()) return;
    source = new EventSource(`${board.dataset.url}stream?mark=${encodeURIComponent(version)}`);
    source.onopen = () => showStatus("live", "good");
    source.onmessage = (event) => {
      if (isPointerDown) {
        // Replacing a link between mouse down and mouse up would lose the click.
        deferredEvent = event;
        return;
      }
      resetTimeout();
      version = event.lastEventId;
      applyUpdate(event.data);
      showStatus("live", "good");
    };
    source.addEventListener("still", () => { resetTimeout(); showStatus("live", "good"); });
    source.addEventListener("away", () => { resetTimeout(); showStatus("Reconnecting…", "warn"); });
    source.onerror = () => {
      // EventSource reconnects by itself, unless the server refused the request.
      if (source.readyState === EventSource.CLOSED) fallBackToPolling();
      else setTimeout(() => { if (source && source.readyState !== EventSource.OPEN) fallBackToPolling(); }, 3000);
    };
    resetTimeout(4000);
  }

  // Without any message for this long, a proxy buffers the stream or the connection is dead.
  function resetTimeout(milliseconds = 25000) {
    clearTimeout(timeoutTimer);
    timeoutTimer = setTimeout(fallBackToPolling, milliseconds);
  }

  function disconnect() {
    clearTimeout(pollTimer);
    clearTimeout(timeoutTimer);
    source?.close();
    source = null;
  }

  function fallBackToPolling() {
    disconnect();
    pollCount = 0;
    poll();
  }

  // Every RECONNECT_AFTER_POLLS polls the stream is tried again.
  async function poll() {
    clearTimeout(pollTimer);
    if (isPolling || source || document.hidden || isPaused()) return;
    isPolling = true;
    try {
      const response = await fetch(board.dataset.url, {
        headers: { "X-Part": "1", "If-None-Match": `"${version}"` }, cache: "no-store", redirect: "manual",
      });
      if (response.status === 200) {
        const html = await response.text();
        version = response.headers.get("ETag").replaceAll('"', "");
        applyUpdate(html);
      } else if (response.status !== 304) {
        throw new Error(response.type === "opaqueredirect" || response.status === 404 ? "signed out" : "unavailable");
      }
      pollDelay = pollInterval;
      showStatus("live", "good");
    } catch (error) {
      // Keep the last board; the next successful poll returns everything that changed since.
      pollDelay = Math.min(30000, pollDelay * 1.7);
      if (error.message === "signed out") showStatus(board.dataset.over ? "ended" : "Signed out — reload", "bad");
      else showStatus("Reconnecting…", "warn");
    }
    isPolling = false;
    pollCount += 1;
    pollTimer = setTimeout(pollCount % RECONNECT_AFTER_POLLS === 0 ? openStream : poll, pollDelay);
  }

  function toggleFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.();
  }

  function isPaused() {
    return pauseButton.getAttribute("aria-pressed") === "true";
  }

  function applyUpdate(html) {
    const next = document.createElement("template");
    next.innerHTML = html;
    const knownStops = new Set([...board.querySelectorAll(".stop")].map((stop) => stop.dataset.key));
    for (const panel of next.content.querySelectorAll(".panel")) {
      const current = board.querySelector(`.panel[data-key="${panel.dataset.key}"]`);
      if (comparableHtml(current) !== comparableHtml(panel)) replacePanel(current, panel);
    }
    if (!stillMotion.matches && !document.hidden) {
      for (const stop of board.querySelectorAll(".stop:not(.acked)")) if (!knownStops.has(stop.dataset.key)) fly(stop);
    }
    announceChanges();
    updateCountdowns();
  }

  // Moves a handoff along the rail of its sender, then across to the rail on which it rests. Decoration: the stop is
  // in its list from the start.
  function fly(stop) {
    const sender = board.querySelector(`.rider[data-actor="${CSS.escape(stop.dataset.from)}"] .avatar`);
    const token = stop.querySelector(".token");
    if (!sender || !token) return;
    const from = centre(sender);
    const to = centre(token);
    const turn = Math.max(from.x, stop.parentElement.getBoundingClientRect().left);
    const path = [from, { x: turn, y: from.y }, { x: turn, y: to.y }, to];
    const dot = document.createElement("span");
    dot.className = "flying";
    dot.setAttribute("aria-hidden", "true");
    board.append(dot);
    stop.classList.add("arriving");
    const arrive = () => { dot.remove(); stop.classList.remove("arriving"); };
    const flight = dot.animate(path.map(({ x, y }) => ({ transform: `translate(${x}px, ${y}px)` })), { duration: FLIGHT_MS, easing: "ease-in-out" });
    flight.onfinish = arrive;
    flight.oncancel = arrive;
  }

  function centre(element) {
    const box = element.getBoundingClientRect();
    return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  }

  // Keeps the focused link focused, and highlights items that are new or changed their state.
  function replacePanel(current, panel) {
    const known = new Map([...current.querySelectorAll("li[data-key]")].map((item) => [item.dataset.key, stableClasses(item)]));
    const focused = current.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    for (const item of panel.querySelectorAll("li[data-key]:not(.empty-item)")) {
      if (known.get(item.dataset.key) === item.className) continue;
      item.classList.add("highlight");
      setTimeout(() => item.classList.remove("highlight"), 2500);
      if (item.matches(".stop")) pendingAnnouncements.push(describe(item));
    }
    morph(current, panel.innerHTML);
    if (focused && document.activeElement?.getAttribute("href") !== focused) {
      [...current.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
    }
  }

  // The title of a handoff with its state, such as "Index 42, acknowledged by ada/reader".
  function describe(stop) {
    const state = stop.querySelector(".visually-hidden").textContent.replace(/: $/, "");
    const route = stop.matches(".acked") ? "" : ` from ${stop.dataset.from}`;
    return `${stop.querySelector(".title").textContent}${route}, ${state}`;
  }

  function stableClasses(item) {
    return [...item.classList].filter((name) => name !== "highlight" && name !== "arriving").join(" ");
  }

  // The HTML of a panel without what changes by itself: relative times, countdowns, progress bars, highlights.
  function comparableHtml(panel) {
    const copy = panel.cloneNode(true);
    for (const time of copy.querySelectorAll("time[data-ago], [data-left]")) time.textContent = "";
    for (const bar of copy.querySelectorAll("progress")) bar.removeAttribute("value");
    for (const item of copy.querySelectorAll("li")) item.className = stableClasses(item);
    return copy.innerHTML.replace(/\s+/g, " ");
  }

  function announceChanges() {
    if (!announceToggle.checked) pendingAnnouncements.length = 0;
    if (!pendingAnnouncements.length || Date.now() - lastAnnouncedAt < 4000) return;
    lastAnnouncedAt = Date.now();
    const news = pendingAnnouncements.splice(0);
    announce(news.length > 3 ? `${news.length} handoffs changed. ${news.at(-1)}` : news.join(". "));
  }

  function formatCountdown(seconds) {
    if (seconds < 60) return `${seconds} s left`;
    if (seconds < 3600) return `${Math.ceil(seconds / 60)} min left`;
    const minutes = Math.ceil(seconds / 60);
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min left`;
  }

  // Runs every second, on the server's clock.
  function updateCountdowns() {
    const now = Date.now() - clockOffset;
    for (const countdown of board.querySelectorAll("[data-left]")) {
      const seconds = Math.max(0, Math.ceil((Date.parse(countdown.dataset.left) - now) / 1000));
      const text = seconds ? formatCountdown(seconds) : "expired";
      if (countdown.textContent !== text) countdown.textContent = text;
    }
    for (const bar of board.querySelectorAll(".lease progress")) {
      const left = bar.closest(".lease").querySelector("[data-left]").dataset.left;
      bar.value = Math.max(0, (Date.parse(left) - now) / 1000);
    }
  }

  clockOffset = Date.now() - Date.parse(board.querySelector(".live-grid").dataset.now);

  pauseButton.addEventListener("click", () => {
    pauseButton.setAttribute("aria-pressed", String(!isPaused()));
    if (isPaused()) {
      disconnect();
      showStatus("paused", "");
    } else {
      openStream();
    }
  });
  fullScreenButton.hidden = !document.fullscreenEnabled;
  fullScreenButton.addEventListener("click", toggleFullScreen);
  document.addEventListener("fullscreenchange", () => {
    const isFull = Boolean(document.fullscreenElement);
    document.documentElement.classList.toggle("full-screen", isFull);
    fullScreenButton.setAttribute("aria-pressed", String(isFull));
  });
  document.addEventListener("keydown", (event) => {
    const button = { f: fullScreenButton, p: pauseButton }[event.key];
    const typing = event.target.closest?.("input, select, textarea, dialog, [contenteditable]");
    if (!button || button.hidden || typing || event.ctrlKey || event.metaKey || event.altKey || isKeyboardOff()) return;
    event.preventDefault();
    button.click();
  });
  keyboardHelp?.querySelector(".keys").insertAdjacentHTML("beforeend", "<dt><kbd>p</kbd></dt><dd>Pause the board</dd><dt><kbd>f</kbd></dt><dd>Full screen</dd>");
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) disconnect();
    else openStream();
  });
  board.addEventListener("pointerdown", () => { isPointerDown = true; });
  for (const type of ["pointerup", "pointercancel"]) {
    addEventListener(type, () => {
      isPointerDown = false;
      if (deferredEvent && source) source.onmessage(deferredEvent);
      deferredEvent = null;
    });
  }
  addEventListener("offline", fallBackToPolling);
  addEventListener("online", openStream);
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => { if (event.persisted) openStream(); });
  setInterval(() => { updateCountdowns(); announceChanges(); }, 1000);
  updateCountdowns();
  openStream();
})();
