// The page: takes images by dropping, choosing, pasting and from the camera, and asks the server about each.

import { offerCamera } from "./camera.js";
import { Card } from "./cards.js";
import { ask, hasToken, pause, useToken } from "./client.js";

const MAX_FILES = 100; // at once; a browser decodes each of them
const MAX_REQUESTS = 4; // at once
const ENGINES = { keras: "Keras", openvino: "OpenVINO" };

const at = (id) => document.getElementById(id);
const server = { model: null, askForToken };
const cards = new Set();
const queue = [];
let numRequests = 0;
let lastFile = null;
let newToken = null; // a promise while the person is asked

// The model

async function loadModel() {
  for (;;) {
    try {
      const response = await ask("model", null, { askForToken });
      showModel(await response.json());
      return;
    } catch (error) {
      notify(error.message);
      if (!error.canRetry) return;
      await pause(2);
    }
  }
}

function showModel(model) {
  server.model = model;
  notify("");
  at("model").textContent = document.title = model.file;
  const [height, width] = model.input_size;
  const size = `${height} × ${width}`;
  const numClasses = model.classes.length;
  const kind = model.task === "MultiLabel" ? "tag" : "class";
  const plural = kind === "tag" ? "tags" : "classes";
  const engine = ENGINES[model.engine] ?? model.engine;
  at("facts").textContent = [
    `${numClasses.toLocaleString("en")} ${numClasses === 1 ? kind : plural}`,
    `input ${size}`,
    `${engine} in ${model.precision}`,
  ].join(" · ");
  showCurl();
  work();
}

function notify(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
  at("notice").classList.toggle("error", Boolean(text));
}

// The token

function askForToken() {
  newToken ??= new Promise((resolve) => {
    const form = at("token-form");
    if (!server.model) at("model").textContent = "Model Trainer";
    notify(hasToken() ? "The server refuses this token." : "This server asks for a token.");
    at("token").value = "";
    form.hidden = false;
    at("token").focus();
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        useToken(at("token").value.trim());
        form.hidden = true;
        notify("");
        newToken = null;
        showCurl();
        resolve();
      },
      { once: true },
    );
  });
  return newToken;
}

// Images

function addFiles(files) {
  const images = [...files];
  if (!images.length) return;
  notify(
    images.length > MAX_FILES
      ? `These are the first ${MAX_FILES} of ${images.length.toLocaleString("en")} files; for many use model-trainer predict.`
      : "",
  );
  const added = images.slice(0, MAX_FILES).map(makeCard);
  at("cards").prepend(...added.map((card) => card.element));
  at("results").hidden = false;
  queue.push(...added);
  lastFile = images[added.length - 1];
  showCurl();
  work();
}

function makeCard(file) {
  const card = new Card(file, server, (text) => (at("status").textContent = text));
  cards.add(card);
  card.element.addEventListener("removed", () => {
    cards.delete(card);
    at("results").hidden = !cards.size;
    (cards.size ? at("results") : at("choose")).focus();
  });
  return card;
}

function work() {
  while (server.model && queue.length && numRequests < MAX_REQUESTS) {
    const card = queue.shift();
    if (cards.has(card)) predict(card);
  }
}

async function predict(card) {
  numRequests++;
  await card.predict();
  numRequests--;
  work();
}

function clear() {
  queue.length = 0;
  for (const card of cards) card.remove();
  cards.clear();
  at("results").hidden = true;
  at("choose").focus();
}

// The line for curl

function showCurl() {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const type = lastFile?.type.startsWith("image/") ? lastFile.type : "image/jpeg";
  const token = hasToken() ? ' -H "Authorization: Bearer $MODEL_TRAINER_TOKEN"' : "";
  at("curl").textContent =
    `curl --data-binary @${quoted(lastFile?.name ?? "photo.jpg")} -H 'Content-Type: ${type}'${token} ` +
    quoted(new URL("invocations", document.baseURI).href);
}

async function copyCurl() {
  try {
    await navigator.clipboard.writeText(at("curl").textContent);
    at("copy").textContent = "Copied";
    await pause(2);
    at("copy").textContent = "Copy";
  } catch {
    getSelection().selectAllChildren(at("curl")); // without HTTPS there is no clipboard; Ctrl-C copies the selection
  }
}

// Events

const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
let depth = 0; // a drag enters and leaves each element it passes over

function drag(event, change) {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  depth = Math.max(0, depth + change);
  at("drop").classList.toggle("over", depth > 0);
}

document.addEventListener("dragenter", (event) => drag(event, 1));
document.addEventListener("dragover", (event) => drag(event, 0));
document.addEventListener("dragleave", (event) => drag(event, -1));
document.addEventListener("drop", (event) => {
  event.preventDefault(); // a browser would open what is dropped
  depth = 0;
  at("drop").classList.remove("over");
  if (event.dataTransfer.files.length) addFiles(event.dataTransfer.files);
  else notify("That is not a file. Save the image first, or copy and paste it.");
});
document.addEventListener("paste", (event) => addFiles(event.clipboardData.files));
at("choose").addEventListener("click", () => at("files").click());
at("files").addEventListener("change", () => {
  addFiles(at("files").files);
  at("files").value = ""; // the same file may be chosen again
});
at("clear").addEventListener("click", clear);
at("copy").addEventListener("click", copyCurl);
offerCamera(at("open-camera"), (photo) => addFiles([photo]));
showCurl();
loadModel();
