// Talks to the server: the token, waiting while the server is busy, and errors as sentences for a person.

const MAX_TRIES = 6;
const TOKEN_KEY = "model-trainer-token";

export class Problem extends Error {
  constructor(message, canRetry) {
    super(message);
    this.canRetry = canRetry;
  }
}

let token = stored();

function stored() {
  try {
    return sessionStorage.getItem(TOKEN_KEY);
  } catch {
    return null; // storage is turned off; the token then lives as long as the page
  }
}

export const hasToken = () => Boolean(token);

export function useToken(text) {
  token = text;
  try {
    sessionStorage.setItem(TOKEN_KEY, text);
  } catch {
    // see stored()
  }
}

export const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export function sizeText(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} KB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * Sends a request and returns its response; waits while the server is busy.
 *
 * @param path relative to the page, so that a proxy may serve it below any prefix.
 * @param image the file to send; null asks with GET.
 * @param onWait called with the seconds before a request is sent again.
 * @param askForToken called when the server refuses the token; resolves once there is another one.
 */
export async function ask(path, image, { onWait = () => {}, askForToken }) {
  for (let attempt = 1; ; attempt++) {
    const sent = token;
    const response = await send(path, image);
    if (response.ok) return response;
    if (response.status === 401) {
      if (sent === token) await askForToken();
      continue;
    }
    if (response.status === 429 && attempt < MAX_TRIES) {
      const seconds = Math.min(Math.max(Number(response.headers.get("Retry-After")) || 1, 1), 60);
      onWait(seconds);
      // Clients that were refused together should not retry at the same time.
      await pause(seconds * (1 + Math.random() / 2));
      continue;
    }
    throw await problem(response, image);
  }
}

async function send(path, image) {
  const headers = { Accept: path.startsWith("attribution") ? "image/png" : "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (image) headers["Content-Type"] = image.type.startsWith("image/") ? image.type : "application/octet-stream";
  const options = { method: image ? "POST" : "GET", headers, body: image, cache: "no-store", credentials: "omit" };
  try {
    return await fetch(path, options);
  } catch {
    if (image && !(await isReadable(image))) throw new Problem("The browser cannot read this file.", false);
    throw new Problem("The server does not answer. It may have been stopped, or the connection is lost.", true);
  }
}

async function isReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false; // a folder, or a file that was changed or deleted since it was chosen
  }
}

async function problem(response, image) {
  let reason = "";
  try {
    reason = (await response.json()).error ?? "";
  } catch {
    // a proxy's page instead of our JSON
  }
  const status = response.status;
  if (status === 413) return new Problem(image ? `This file is ${sizeText(image.size)}. ${reason}` : reason, false);
  if (status === 429) return new Problem("The server is busy. Please try again later.", true);
  if (!reason) reason = `The server answered with status ${status}.`;
  return new Problem(reason, status >= 500 && status !== 501);
}
