"use strict";
// A page that `model-trainer report --watch` serves: asks for the version of the run's files, and loads the newer page.
(() => {
  const state = document.getElementById("watch-state");
  const ask = async () => {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      const version = await answer.text();
      if (answer.ok && version !== state.dataset.version) location.reload();
      state.textContent = "This page updates itself during training.";
    } catch {
      state.textContent = "The server of this page has ended, so it no longer renews itself.";
    }
    setTimeout(ask, 2000);
  };
  setTimeout(ask, 2000);
})();
