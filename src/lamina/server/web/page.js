// SPDX-License-Identifier: Apache-2.0
// What the page can do beyond HTML: copy buttons, and "/" to search. Nothing depends on it.
"use strict";

const said = document.getElementById("said");

function copyBySelection(text) {
  // navigator.clipboard exists on https and on this machine only
  const area = document.createElement("textarea");
  area.value = text;
  area.setAttribute("readonly", "");
  area.className = "offscreen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const done = await copy(button.dataset.copy);
    button.focus();
    button.textContent = done ? "Copied" : "Select it";
    said.textContent = done ? "Copied to the clipboard" : "This browser lets no page copy";
    setTimeout(() => {
      button.textContent = "Copy";
      said.textContent = "";
    }, 2000);
  });
}

document.addEventListener("keydown", (event) => {
  const search = document.getElementById("q");
  if (search === null || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !event.target.matches("input, textarea, select")) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});
