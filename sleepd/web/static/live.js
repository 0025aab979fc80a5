// Replaces parts of the start page when the server sends new ones. Without this script the page shows the same at
// each load. The parts are made and escaped by the server.
"use strict";
(() => {
  if (!document.getElementById("head")) return;
  const source = new EventSource("/events");
  for (const name of ["head", "facts", "actions"]) {
    source.addEventListener(name, (event) => {
      const part = document.getElementById(name);
      if (part) part.innerHTML = event.data;
    });
  }
})();
