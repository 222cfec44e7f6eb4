"use strict";
(() => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (head.tagName !== "TH") return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const order = (a, b) => (isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b));
        body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
      });
    });
  }
  const filter = document.getElementById("filter");
  if (!filter) return;
  filter.hidden = false;
  const only = document.getElementById("only");
  const choose = () => {
    let shown = 0;
    const photos = document.querySelectorAll("figure.photo");
    for (const photo of photos) {
      photo.hidden = only.value !== "" && !photo.dataset.labels.split(" ").includes(only.value);
      shown += !photo.hidden;
    }
    document.getElementById("shown").textContent = shown + " of " + photos.length + " photos";
  };
  only.addEventListener("change", choose);
  addEventListener("hashchange", () => {
    const wanted = document.getElementById(location.hash.slice(1));
    if (wanted && wanted.hidden) {
      only.value = "";
      choose();
      wanted.scrollIntoView();
    }
  });
  choose();
})();
