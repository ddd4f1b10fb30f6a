// The page: its views, what they share, and the address, which holds their state.

import * as api from "./api.js";
import { Inspector } from "./inspector.js";
import { MapView } from "./map.js";
import { MorphView } from "./morph.js";
import { h } from "./pictures.js";
import { SlidersView } from "./sliders.js";
import { TrainingView } from "./training.js";
import { WallView } from "./wall.js";

const VIEWS = { map: ["Map", MapView], wall: ["Wall", WallView], sliders: ["Sliders", SlidersView],
  morph: ["Morph", MorphView], training: ["Training", TrainingView] };
const POLL = 700; // milliseconds between two questions how far the work is

// What views share. `state` is a flat object of texts in the address.
class App {
  constructor(info) {
    this.info = info;
    this.state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    this.listeners = [];
    this.pins = JSON.parse(sessionStorage.getItem(`pins ${info.weights}`) ?? "[]");
    this.morph = [];
  }

  set(changes) {
    Object.assign(this.state, changes);
    const known = Object.entries(this.state).filter(([, value]) => value !== "" && value != null);
    history.replaceState(null, "", `#${new URLSearchParams(known)}`);
  }

  // Calls `changed` whenever the server knows more, or pins and groups have changed.
  listen(changed) {
    this.listeners.push(changed);
  }

  notify() {
    sessionStorage.setItem(`pins ${this.info.weights}`, JSON.stringify(this.pins));
    for (const changed of this.listeners) changed(this.info);
  }

  say(text, isError = false) {
    const status = document.getElementById("status");
    status.className = isError ? "error" : "";
    status.replaceChildren(text);
  }

  fail = (error) => this.say(error instanceof TypeError ? "The server does not answer. Start `vaekit explore` once more."
    : error.message, true);

  inspect(place, image = null) {
    this.set({ place: JSON.stringify(place) });
    this.mark(place);
    return this.inspector.show(place, image).catch(this.fail);
  }

  // Asks how far the work is until none is under way.
  async poll() {
    clearTimeout(this.timer);
    try {
      const before = JSON.stringify(this.info);
      this.info = await api.get("/api/info");
      const running = this.info.jobs.filter((job) => job.state === "running");
      const failed = this.info.jobs.find((job) => job.state === "failed");
      if (running.length) {
        const { text, done, total } = running[0];
        const share = total ? ` ${done.toLocaleString("en")} of ${total.toLocaleString("en")}` : " …";
        this.say(h("span", {}, text, h("progress", total ? { value: done, max: total } : {}), share));
        this.timer = setTimeout(() => this.poll(), POLL);
      } else if (failed) this.say(failed.error, true);
      else this.say("");
      if (JSON.stringify(this.info) !== before) this.notify();
    } catch (error) {
      this.fail(error);
    }
  }
}

async function main() {
  const info = await api.get("/api/info");
  const app = new App(info);
  document.title = `${info.run} – vaekit`;
  document.getElementById("run").textContent = info.run;
  document.documentElement.style.setProperty("--aspect", `${info.shape[1]} / ${info.shape[0]}`);
  app.inspector = new Inspector(app, document.getElementById("inspector"));
  const views = {};
  for (const [name, [text, View]] of Object.entries(VIEWS)) {
    const element = h("div", { class: "view", id: `view-${name}`, role: "tabpanel", "aria-labelledby": `tab-${name}`, hidden: true });
    document.getElementById("views").append(element);
    views[name] = { element, view: new View(app, element), tab: tab(name, text) };
  }
  const tabs = Object.values(views).map(({ tab }) => tab);
  document.getElementById("tabs").append(...tabs);

  app.open = (name) => {
    for (const [other, { element, view, tab }] of Object.entries(views)) {
      const chosen = other === name;
      element.hidden = !chosen;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen) view.open?.();
      else view.close?.();
    }
    app.set({ tab: name });
  };
  function tab(name, text) {
    const onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
      next.focus();
      next.click();
    };
    return h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `view-${name}`,
      onclick: () => app.open(name), onkeydown }, text);
  }
  acceptPictures(app);
  app.open(app.state.tab in VIEWS ? app.state.tab : "map");
  if (app.state.place) app.inspect(JSON.parse(app.state.place));
  await app.poll();
  app.notify();
}

// Pictures dropped anywhere on the page, or chosen.
function acceptPictures(app) {
  async function take(file) {
    if (!file) return;
    app.say("Encoding the picture …");
    try {
      const facts = await api.upload(file);
      app.say("");
      await app.inspector.showUpload(file, facts);
    } catch (error) {
      app.fail(error);
    }
  }
  const body = document.body;
  document.getElementById("file").addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = "";
  });
  body.addEventListener("dragover", (event) => {
    event.preventDefault();
    body.classList.add("dropping");
  });
  body.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) body.classList.remove("dropping");
  });
  body.addEventListener("drop", (event) => {
    event.preventDefault();
    body.classList.remove("dropping");
    take(event.dataTransfer.files[0]);
  });
}

main().catch((error) => {
  document.getElementById("status").className = "error";
  document.getElementById("status").textContent = error.message;
});
