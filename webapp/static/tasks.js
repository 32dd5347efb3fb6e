// The board of tasks: a card is dragged to the status that an action leads to. The page of a task has the same actions as
// buttons, for the keyboard, for touch and without this script.
"use strict";

// By status: where a card can go, and how. "#…" opens the form on the page of the task.
const MOVES = {
  open: { assigned: "#assign", in_progress: "start" },
  assigned: { in_progress: "start" },
  in_progress: { done: "#ship" },
  blocked: { in_progress: "resolve" },
};
const board = () => document.querySelector(".board[data-moves]");
let dragged = null;

function movesOf(card) {
  const moves = MOVES[card.closest("[data-status]").dataset.status] || {};
  // A task that waits for others cannot be started.
  const isWaiting = "blocked" in card.dataset;
  return Object.fromEntries(Object.entries(moves).filter(([, action]) => !(isWaiting && action === "start")));
}

// Cards that were added since are draggable from the first touch of the mouse.
document.addEventListener("mousedown", (event) => {
  const card = event.target.closest?.(".board[data-moves] .card");
  if (card) card.draggable = Object.keys(movesOf(card)).length > 0;
});

document.addEventListener("dragstart", (event) => {
  const card = event.target.closest?.(".board[data-moves] .card[draggable=true]");
  if (!card) return;
  dragged = { card, moves: movesOf(card), url: card.querySelector("a.title").href };
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/uri-list", dragged.url);
  event.dataTransfer.setData("text/plain", dragged.url);
  card.classList.add("dragged");
  for (const column of board().querySelectorAll("[data-status]")) {
    column.classList.toggle("can-drop", column.dataset.status in dragged.moves);
  }
});

// The column under the pointer, if the card can go there; the list updates itself also while a card is dragged.
function targetOf(event) {
  const column = dragged && event.target.closest?.(".board > [data-status]");
  return column && column.dataset.status in dragged.moves ? column : null;
}

for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    const target = targetOf(event);
    if (target) event.preventDefault();
    for (const column of document.querySelectorAll(".drop-here")) column.classList.toggle("drop-here", column === target);
    target?.classList.add("drop-here");
  });
}

document.addEventListener("drop", (event) => {
  const target = targetOf(event);
  if (!target) return;
  event.preventDefault();
  const action = dragged.moves[target.dataset.status];
  if (action.startsWith("#")) {
    location.href = dragged.url + action;
    return;
  }
  const form = document.getElementById("task-move");
  form.action = `${dragged.url}/${action}`;
  form.requestSubmit();
});

document.addEventListener("dragend", () => {
  dragged = null;
  for (const marked of document.querySelectorAll(".dragged, .can-drop, .drop-here")) {
    marked.classList.remove("dragged", "can-drop", "drop-here");
  }
});
