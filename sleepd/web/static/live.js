// Replaces parts of the start page when the server sends new ones. Without this script the page shows the same at
// each load. The parts are made and escaped by the server.
"use strict";
(() => {
  if (!document.getElementById("head")) return;
  const source = new EventSource("/events");
  const replace = (name, text) => {
    const part = document.getElementById(name);
    const fresh = document.createElement("div");
    fresh.innerHTML = text;
    if (fresh.innerHTML.trim() === part.innerHTML.trim()) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    part.replaceChildren(...fresh.childNodes);
    // Whoever moves by keyboard stays where they were.
    for (const link of part.querySelectorAll("a")) {
      if (focused !== null && link.getAttribute("href") === focused) {
        link.focus({ preventScroll: true });
        break;
      }
    }
  };
  for (const name of ["head", "facts", "actions"]) {
    source.addEventListener(name, (event) => replace(name, event.data));
  }
})();
