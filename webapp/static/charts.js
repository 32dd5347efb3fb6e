// Charts: the values of a bin below the drawing, by pointer, by touch and with the arrow keys.
"use strict";

for (const plot of document.querySelectorAll(".chart .plot")) {
  const targets = [...plot.querySelectorAll(".hover-target")];
  if (!targets.length) continue;
  const readout = document.createElement("p");
  readout.className = "readout";
  readout.setAttribute("role", "status");
  plot.closest(".chart").after(readout);
  plot.setAttribute("tabindex", "0");
  const texts = targets.map((target) => {
    const title = target.querySelector("title");
    const [bin, ...values] = title.textContent.split("\n");
    // The readout replaces the tooltip of the browser.
    title.remove();
    return `${bin} · ${values.join(" · ")}`;
  });
  let chosen = -1;

  function choose(index) {
    if (index === chosen) return;
    targets[chosen]?.classList.remove("chosen");
    chosen = index;
    targets[chosen]?.classList.add("chosen");
    readout.textContent = texts[chosen] || "";
  }

  for (const type of ["pointermove", "pointerdown"]) {
    plot.addEventListener(type, (event) => choose(targets.indexOf(event.target.closest(".hover-target"))));
  }
  plot.addEventListener("pointerleave", () => choose(-1));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    const last = targets.length - 1;
    if (step === undefined) choose(event.key === "Home" ? 0 : last);
    else choose(chosen < 0 ? (step > 0 ? 0 : last) : Math.min(last, Math.max(0, chosen + step)));
  });
}
