// A photo from the camera, where the browser offers one: over HTTPS, and on localhost.

const dialog = document.getElementById("camera");
const video = dialog.querySelector("video");
const problem = dialog.querySelector(".notice");
const take = dialog.querySelector(".take");
let stream = null;
let number = 0;

/** Shows the button `open`, if there may be a camera; `onPhoto` gets each photo as a File. */
export function offerCamera(open, onPhoto) {
  if (!navigator.mediaDevices?.getUserMedia) return;
  open.hidden = false;
  open.addEventListener("click", start);
  take.addEventListener("click", async () => {
    const photo = await draw();
    if (photo) onPhoto(photo);
    dialog.close();
  });
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);
  video.addEventListener("loadeddata", () => (take.disabled = false));
}

async function start() {
  problem.hidden = true;
  take.disabled = true;
  dialog.showModal();
  try {
    const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (!dialog.open) return opened.getTracks().forEach((track) => track.stop());
    stream = video.srcObject = opened;
  } catch (error) {
    problem.textContent =
      error.name === "NotFoundError" ? "No camera was found." : "The camera cannot be used; the browser may forbid it.";
    problem.hidden = false;
  }
}

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
}

async function draw() {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return blob && new File([blob], `camera-${++number}.jpg`, { type: blob.type });
}
