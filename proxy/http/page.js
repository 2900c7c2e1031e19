// The page is whole without this. It fetches itself again and exchanges what changes, so that a look costs no reload;
// what somebody types is left alone.
"use strict";

const EVERY = 3000;

async function refresh() {
  if (document.hidden || document.activeElement?.tagName === "INPUT") return;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const name of ["header", "main", "footer"]) {
      document.querySelector(name).replaceWith(fresh.querySelector(name));
    }
  } catch {
    const health = document.querySelector(".health");
    health.textContent = "no answer; what is shown is old";
    health.className = "health bad";
  }
}

setInterval(refresh, EVERY);
