// Puts the page together: one change of the filter moves the charts, the table and the pictures.

function countTrials({ recordsDisplay, recordsTotal }) {
  const text = `${recordsDisplay.toLocaleString("en")} of ${recordsTotal.toLocaleString("en")} trials`;
  const cells = passing.filter(Boolean).length;
  document.getElementById("count").textContent =
    `${text}, ${cells.toLocaleString("en")} of ${passing.length.toLocaleString("en")} cells`;
}

async function changed() {
  refilter();
  trials.draw();
  offerPictures();
  const unit = document.getElementById("unit");
  unit.textContent =
    state.part === ALL ? report.scale_note : report.parts[state.part].note;
  await drawAll();
}

function partChanged(value) {
  state.part = value === ALL ? ALL : Number(value);
  clearChoices();
  buildChoices(changed);
  buildColors();
  return changed();
}

function listen() {
  const part = document.getElementById("part");
  part.value = String(state.part);
  part.addEventListener("change", () => partChanged(part.value));
  document.getElementById("color").addEventListener("change", (event) => {
    state.color = event.target.value;
    drawAll();
  });
  document.getElementById("reset").addEventListener("click", () => {
    clearChoices();
    buildChoices(changed);
    changed();
  });
}

// A link to a part opens it.
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (!target?.matches("details")) return;
  target.open = true;
  target.querySelector("summary").focus();
  target.scrollIntoView();
}

// Paper shows what is folded away on a screen.
function unfold() {
  const folded = [...document.querySelectorAll("main details.print:not([open])")];
  window.addEventListener("beforeprint", () => folded.forEach((one) => (one.open = true)));
  window.addEventListener("afterprint", () => folded.forEach((one) => (one.open = false)));
}

function redrawOnResize() {
  let width = window.innerWidth;
  let waiting;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // a phone's bars come and go while it scrolls
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
}

async function start() {
  refilter();
  listen();
  buildChoices(changed);
  buildColors();
  buildTable(countTrials);
  buildPictures();
  unfold();
  redrawOnResize();
  window.addEventListener("hashchange", openTarget);
  await partChanged(String(state.part));
  window.report = { views, trials, state }; // for the console, and for the tests
  document.body.dataset.ready = "yes";
}

start();
