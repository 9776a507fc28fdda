"use strict";
// What the page can do beyond HTML: a cursor in charts, sorting, a filter, copying. It runs once, and loads nothing.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Charts: the cursor follows the pointer or the arrow keys, and the key below shows the values there.
  const nearest = (positions, x) =>
    positions.reduce((best, each, index) => (Math.abs(each - x) < Math.abs(positions[best] - x) ? index : best), 0);

  function addCursor(figure, readout) {
    const svg = figure.querySelector("svg");
    const cursor = figure.querySelector(".cursor");
    const spots = all(".spot", figure);
    const values = all(".key b", figure);
    const at = figure.querySelector(".key .at");
    let index = 0;

    function show(next, isActive = true) {
      const data = readout();
      if (!data.x.length) return;
      index = Math.max(0, Math.min(data.x.length - 1, next));
      at.textContent = data.at[index];
      data.lines.forEach((line, number) => {
        const y = line.y[index];
        values[number].textContent = line.text[index];
        spots[number].classList.toggle("active", isActive && y !== null);
        if (y === null) return;
        spots[number].setAttribute("cx", data.x[index]);
        spots[number].setAttribute("cy", y);
      });
      cursor.setAttribute("x1", data.x[index]);
      cursor.setAttribute("x2", data.x[index]);
      cursor.classList.toggle("active", isActive);
      const names = all(".key > span:not(.at)", figure).map((each) => each.textContent.trim());
      svg.setAttribute("aria-valuemax", data.x.length - 1);
      svg.setAttribute("aria-valuenow", index);
      svg.setAttribute("aria-valuetext", `${data.at[index]}: ${names.join(", ")}`);
    }

    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10, PageDown: -10, Home: -1e9, End: 1e9 };
    svg.setAttribute("role", "slider");
    svg.setAttribute("aria-valuemin", 0);
    svg.setAttribute("tabindex", 0);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      show(nearest(readout().x, ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width));
    });
    svg.addEventListener("pointerleave", () => show(1e9, false));
    svg.addEventListener("focus", () => svg.matches(":focus-visible") && show(index));
    svg.addEventListener("blur", () => show(1e9, false));
    svg.addEventListener("keydown", (event) => {
      if (!(event.key in moves)) return;
      event.preventDefault();
      show(index + moves[event.key]);
    });
    show(1e9, false);
    return show;
  }

  for (const figure of all("figure.chart[data-readout]")) {
    const data = JSON.parse(figure.dataset.readout);
    addCursor(figure, () => data);
  }

  // Curves of tags: the chosen one is drawn last, so that it lies on top.
  for (const figure of all("figure.chart.tags")) {
    const [left, right, bottom, top] = figure.dataset.axes.split(" ").map(Number);
    const lines = all("polyline.tag", figure);
    const select = figure.querySelector("select");
    const readout = () => {
      const points = lines[select.selectedIndex].getAttribute("points").split(" ").filter(Boolean);
      const pairs = points.map((point) => point.split(",").map(Number));
      const text = pairs.map(([, y]) => `precision ${((bottom - y) / (bottom - top)).toFixed(2)}`);
      const recalls = pairs.map(([x]) => `recall ${((x - left) / (right - left)).toFixed(2)}`);
      return { x: pairs.map(([x]) => x), at: recalls, lines: [{ y: pairs.map(([, y]) => y), text }] };
    };
    const choose = () => {
      lines.forEach((line, index) => line.classList.toggle("chosen", index === select.selectedIndex));
      const chosen = lines[select.selectedIndex];
      chosen.parentNode.insertBefore(chosen, figure.querySelector(".spot"));
      figure.querySelector(".tag-name").textContent = select.value;
      show(0, false);
    };
    const show = addCursor(figure, readout);
    select.addEventListener("change", choose);
    figure.querySelector(".choice").hidden = false;
    choose();
  }

  // Tables: a button in each header sorts; what has no value comes last either way.
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const headers = all("thead th", table);
    headers.forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      const isNumber = header.classList.contains("number");
      button.addEventListener("click", () => {
        const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        headers.forEach((each) => each.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        const keyed = [...body.rows].map((row) => {
          const cell = row.cells[column];
          return [isNumber ? parseFloat(cell.dataset.key) : cell.textContent.trim(), row];
        });
        const isMissing = (key) => key === "" || Number.isNaN(key);
        keyed.sort(([a], [b]) =>
          isMissing(a) || isMissing(b) ? isMissing(a) - isMissing(b) : sign * (isNumber ? a - b : compare(a, b)),
        );
        body.append(...keyed.map(([, row]) => row));
      });
    });
  }

  // A filter of the rows of a table by their first cell.
  for (const filter of all(".filter")) {
    const table = document.getElementById(filter.dataset.table);
    const input = filter.querySelector("input");
    const output = filter.querySelector("output");
    input.addEventListener("input", () => {
      const text = input.value.trim().toLowerCase();
      let count = 0;
      for (const row of table.tBodies[0].rows) {
        row.hidden = !row.cells[0].textContent.toLowerCase().includes(text);
        count += !row.hidden;
      }
      output.textContent = text ? `${count} of ${table.tBodies[0].rows.length}` : "";
    });
    filter.hidden = false;
  }

  // A button that copies code, where the browser allows it.
  for (const code of navigator.clipboard ? all("pre.code") : []) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.querySelector("code").textContent);
      button.textContent = "Copied";
    });
    code.after(button);
  }

  // The list of sections shows where the reader is.
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const visible = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) visible[entry.isIntersecting ? "add" : "delete"](entry.target.id);
    const current = [...links.keys()].find((id) => visible.has(id));
    for (const [id, link] of links) {
      if (id === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  });
  all("main section[id]").forEach((section) => observer.observe(section));

  // On paper nothing is folded.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    closed.forEach((each) => (each.open = true));
  });
  window.addEventListener("afterprint", () => closed.forEach((each) => (each.open = false)));
})();
