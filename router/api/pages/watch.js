// Fetches this page again while something is under way, and puts in what has changed; copies commands.
(() => {
  const EVERY = 3000;
  const main = document.getElementById("main");
  let timer = 0;
  const parts = (page) => page.querySelectorAll("[data-part]");
  const inHand = (here) => {
    const chosen = getSelection();
    return chosen && !chosen.isCollapsed && chosen.containsNode(here, true);
  };
  function replace(here, next) {
    for (const open of here.querySelectorAll("details[open]"))
      next.querySelector("#" + CSS.escape(open.id))?.setAttribute("open", "");
    if (here.innerHTML === next.innerHTML || inHand(here)) return;
    const focused = here.contains(document.activeElement) ? document.activeElement.id : "";
    const places = [...here.querySelectorAll("[id]")].map((each) => [each.id, each.scrollLeft, atEnd(each) ? Infinity : each.scrollTop]);
    here.replaceChildren(...next.childNodes);
    for (const [id, left, top] of places) {
      const each = document.getElementById(id);
      if (each) [each.scrollLeft, each.scrollTop] = [left, Math.min(top, each.scrollHeight)];
    }
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
  // Whether somebody follows a log: it goes on showing its end.
  const atEnd = (each) => each.matches("pre.log") && each.scrollTop + each.clientHeight >= each.scrollHeight - 4;
  async function refresh() {
    clearTimeout(timer);
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (answer.redirected || !answer.ok) return location.reload();
      const template = document.createElement("template"); // in it nothing is run, loaded or applied
      template.innerHTML = await answer.text();
      const page = template.content;
      const there = [...parts(page)].map((each) => each.id).join();
      if (there !== [...parts(document)].map((each) => each.id).join()) return location.reload();
      document.title = page.querySelector("title").textContent;
      main.dataset.underWay = page.querySelector("#main").dataset.underWay;
      for (const next of parts(page)) replace(document.getElementById(next.id), next);
    } catch { /* the platform is away: it is asked again */ }
    plan();
  }
  function plan() {
    clearTimeout(timer);
    if (main.dataset.underWay === "yes" && !document.hidden) timer = setTimeout(refresh, EVERY);
  }
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    const command = document.getElementById(button.dataset.of);
    getSelection().selectAllChildren(command);
    try {
      await navigator.clipboard.writeText(command.textContent);
      document.getElementById("said").textContent = "The command is copied.";
      button.firstChild.data = "Copied";
      setTimeout(() => { button.firstChild.data = "Copy"; getSelection().removeAllRanges(); }, 1500);
    } catch { /* it is selected, to be copied by hand */ }
  });
  document.documentElement.classList.add("scripted");
  for (const log of document.querySelectorAll("pre.log")) log.scrollTop = log.scrollHeight;
  plan();
})();
