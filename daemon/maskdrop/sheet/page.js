"use strict";
// Filter and zoom. Text from outside is only ever compared or set as text, never as markup.
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const form = document.querySelector("form");
const shown = document.querySelector("#shown");
const cards = all("article").map((card) => ({
  card,
  text: all("h2, .why", card).map((part) => part.textContent).join(" ").toLowerCase(),
}));

function filter() {
  const words = form.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const state = form.state.value;
  let count = 0;
  for (const { card, text } of cards) {
    const fits = (state === "all" || card.classList.contains(state)) && words.every((word) => text.includes(word));
    card.hidden = !fits;
    count += fits;
  }
  const kinds = new Set(all("input[name=kind]:checked").map((box) => box.value));
  for (const figure of all("figure")) figure.hidden = !kinds.has(figure.dataset.kind);
  document.documentElement.style.setProperty("--side", form.side.value + "px");
  shown.textContent = `${count} of ${cards.length} shown`;
}
form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
filter();

const dialog = document.querySelector("dialog");
const large = dialog.querySelector("img");
const label = dialog.querySelector("span");
let link = null;
let scale = 1;

function size(factor) {
  scale = Math.min(16, Math.max(0.25, factor));
  large.style.width = Math.round(large.naturalWidth * scale) + "px";
}
function show(next) {
  link = next;
  const card = link.closest("article");
  large.src = link.href;
  label.textContent = card.querySelector("h2").textContent + " · " + link.closest("figure").dataset.kind;
  if (!dialog.open) dialog.showModal();
}
function step(by) {
  const links = all("main a").filter((one) => one.offsetParent !== null);
  const at = links.indexOf(link) + by;
  if (links[at]) show(links[at]);
}
large.addEventListener("load", () => size(scale));
document.querySelector("main").addEventListener("click", (event) => {
  const next = event.target.closest("a");
  if (next) {
    event.preventDefault();
    scale = 1.5;
    show(next);
  }
});
const actions = {
  "+": () => size(scale * 1.5),
  "-": () => size(scale / 1.5),
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
};
dialog.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) (actions[button.value] || (() => dialog.close()))();
});
dialog.addEventListener("keydown", (event) => {
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
});
dialog.addEventListener("wheel", (event) => {
  event.preventDefault();
  actions[event.deltaY < 0 ? "+" : "-"]();
}, { passive: false });
