// One card for each image: its picture, its labels with bars, its attribution map, or why there is none.

import { ask, sizeText } from "./client.js";

const FEW = 5;
const MANY = 50;
const template = document.getElementById("card");
const barTemplate = document.getElementById("bar");

export function percent(probability) {
  if (!(probability > 0)) return "0 %";
  if (probability < 0.001) return "< 0.1 %";
  // Only 1 is shown as 100 %.
  return `${probability < 1 ? Math.min(probability * 100, 99.9).toFixed(1) : 100} %`;
}

export class Card {
  /**
   * @param file the image.
   * @param server `{model, askForToken}`: what GET /model answered, and how to get another token.
   * @param announce tells a screen reader a sentence.
   */
  constructor(file, server, announce) {
    this.file = file;
    this.server = server;
    this.announce = announce;
    this.predictions = [];
    this.hasAll = false; // whether they are the most probable labels, rather than the tags that reach their thresholds
    this.isExpanded = false;
    this.maps = new Map(); // label to object URL
    this.element = template.content.firstElementChild.cloneNode(true);
    this.url = URL.createObjectURL(file);
    this.#listen();
    this.#find(".name").textContent = file.name;
    this.#find(".facts").textContent = sizeText(file.size);
    this.#say("Waiting …");
  }

  get isMultiLabel() {
    return this.server.model.task === "MultiLabel";
  }

  async predict() {
    const limit = this.server.model.limits.body_bytes;
    if (limit && this.file.size > limit) {
      // A server that refuses a body while it arrives closes the connection, of which a browser says only that it failed.
      this.#fail(`This file is ${sizeText(this.file.size)}; this server accepts up to ${sizeText(limit)}.`, false);
      return;
    }
    const start = performance.now();
    try {
      await this.#load(this.isMultiLabel ? null : this.#mostLabels());
    } catch (error) {
      this.#fail(error.message, error.canRetry ?? false);
      return;
    }
    const seconds = (performance.now() - start) / 1000;
    this.#find(".facts").textContent =
      `${sizeText(this.file.size)} · ${seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`}`;
    const [first] = this.predictions;
    this.announce(`${this.file.name}: ${first ? `${first.label}, ${percent(first.probability)}` : "no tag"}`);
  }

  remove() {
    this.element.remove();
    this.isRemoved = true;
    for (const url of [this.url, ...this.maps.values()]) URL.revokeObjectURL(url);
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }

  #listen() {
    const photo = this.#find(".photo");
    photo.addEventListener("error", () => {
      photo.hidden = true;
      this.#find(".missing").hidden = false;
    });
    photo.src = this.url;
    photo.alt = this.file.name;
    const remove = this.#find(".remove");
    remove.setAttribute("aria-label", `Remove ${this.file.name}`);
    remove.addEventListener("click", () => {
      this.remove();
      this.element.dispatchEvent(new Event("removed"));
    });
    this.#find(".again").addEventListener("click", () => this.predict());
    this.#find(".more").addEventListener("click", () => this.#toggleMore());
    this.#find(".explain").addEventListener("click", () => this.#explain(this.explained ? null : this.#firstLabel()));
  }

  #mostLabels() {
    return Math.min(MANY, this.server.model.classes.length);
  }

  #firstLabel() {
    return this.predictions[0].label;
  }

  async #load(top) {
    this.#say("Computing …");
    this.#find(".again").hidden = true;
    const path = top === null ? "invocations" : `invocations?top_k=${top}`;
    const response = await this.#ask(path);
    this.predictions = (await response.json()).predictions;
    this.hasAll = top !== null;
    this.#say("");
    this.#draw();
  }

  #ask(path) {
    const onWait = (seconds) => this.#say(`The server is busy; trying again in ${seconds} s …`);
    return ask(path, this.file, { onWait, askForToken: this.server.askForToken });
  }

  #draw() {
    const shown = this.hasAll && !this.isExpanded ? this.predictions.slice(0, FEW) : this.predictions;
    this.#find(".bars").replaceChildren(...shown.map((prediction) => this.#bar(prediction)));
    if (this.isMultiLabel && !this.hasAll && !shown.length) this.#say("No tag reaches its threshold.");
    const more = this.#find(".more");
    const mostLabels = this.#mostLabels();
    more.hidden = mostLabels <= (this.isMultiLabel && !this.hasAll ? shown.length : FEW);
    const all = mostLabels === this.server.model.classes.length ? "All " : "";
    const many = this.isMultiLabel ? "Most probable tags" : `${all}${mostLabels} labels`;
    more.textContent = this.isExpanded ? (this.isMultiLabel ? "Predicted tags" : "Fewer labels") : many;
    more.setAttribute("aria-expanded", String(this.isExpanded));
    this.#find(".explain").hidden = !this.predictions.length;
  }

  #bar({ label, probability }) {
    const bar = barTemplate.content.firstElementChild.cloneNode(true);
    const button = bar.querySelector(".label");
    button.textContent = label;
    button.title = `${label}\nShow the regions that support it`;
    button.setAttribute("aria-pressed", String(label === this.explained));
    button.addEventListener("click", () => this.#explain(label === this.explained ? null : label));
    bar.querySelector(".probability").textContent = percent(probability);
    bar.querySelector(".fill").style.width = `${Math.min(Math.max(probability, 0), 1) * 100}%`;
    return bar;
  }

  async #toggleMore() {
    this.isExpanded = !this.isExpanded;
    const needsOthers = this.isMultiLabel && this.isExpanded !== this.hasAll;
    try {
      if (needsOthers) await this.#load(this.isExpanded ? this.#mostLabels() : null);
      else this.#draw();
    } catch (error) {
      this.isExpanded = !this.isExpanded;
      this.#say(error.message, true);
    }
  }

  async #explain(label) {
    this.explained = label;
    this.#draw();
    this.#find(".explain").setAttribute("aria-pressed", String(label !== null));
    if (label !== null && !this.maps.has(label)) {
      this.#say("Computing the attribution map …");
      try {
        const response = await this.#ask(`attribution?label=${encodeURIComponent(label)}`);
        const url = URL.createObjectURL(await response.blob());
        if (this.isRemoved) URL.revokeObjectURL(url);
        else this.maps.set(label, url);
        this.#say("");
      } catch (error) {
        if (this.explained === label) this.#explain(null);
        this.#say(error.message, true);
        return;
      }
    }
    if (this.explained === label) this.#show(label); // another one may have been chosen in the meantime
  }

  #show(label) {
    const map = this.#find(".map");
    const legend = this.#find(".legend");
    map.hidden = legend.hidden = label === null;
    this.element.classList.toggle("explained", label !== null);
    if (label === null) return;
    map.src = this.maps.get(label);
    map.alt = `Attribution map of ${this.file.name} for ${label}`;
    legend.textContent = `Bright regions support “${label}”. The image is shown as the network sees it.`;
    this.announce(map.alt);
  }

  #say(text, isError = false) {
    const message = this.#find(".message");
    message.textContent = text;
    message.hidden = !text;
    message.classList.toggle("error", isError);
    this.element.setAttribute("aria-busy", String(text.endsWith("…")));
    if (isError) this.announce(`${this.file.name}: ${text}`);
  }

  #fail(text, canRetry) {
    this.#say(text, true);
    this.#find(".again").hidden = !canRetry;
  }
}
