// What the reader asks for: one part, methods, values of knobs, and what colors stand for.
// A filter is decided for cells; trials, curves and costs follow the cell that they name.

const report = JSON.parse(document.getElementById("data").textContent);
const ALL = "all";
const KNOB = "knob."; // how knobs begin in the page's address
const state = { part: report.start, color: "method", methods: new Set(), knobs: new Map() };
let asked = {}; // methods and knobs that the address asks for, until their choices are built

// Columns to rows: a text column is {of, at}, a number column a list with null where missing.
function rowsOf(columns) {
  const names = Object.keys(columns);
  const read = names.map((name) => {
    const column = columns[name];
    return Array.isArray(column)
      ? (i) => column[i]
      : (i) => (column.at[i] < 0 ? null : column.of[column.at[i]]);
  });
  const first = columns[names[0]];
  const length = first === undefined ? 0 : (Array.isArray(first) ? first : first.at).length;
  return Array.from({ length }, (_, i) =>
    Object.fromEntries(names.map((name, n) => [name, read[n](i)])),
  );
}

const rows = Object.fromEntries(
  Object.entries(report.rows).map(([name, columns]) => [name, rowsOf(columns)]),
);

for (const cell of rows.cells) cell.method_label = report.methods[cell.method].label;
for (const name of ["effects", "shares", "against"]) {
  for (const row of rows[name]) {
    row.method_label = report.methods[row.method].label;
    row.part_title = report.parts[row.part].title;
  }
}

function inPart(part) {
  return state.part === ALL || part === state.part;
}

// A knob that a method does not vary leaves its cells in: they are what the others are read against.
function passes(cell) {
  if (!inPart(cell.part) || (state.methods.size && !state.methods.has(cell.method))) return false;
  for (const [knob, values] of state.knobs) {
    const value = cell[knob];
    if (values.size && value !== null && value !== undefined && !values.has(value)) return false;
  }
  return true;
}

let passing = [];

function refilter() {
  passing = rows.cells.map(passes);
  arrangeTable();
}

// Knobs color our own method's cells; the others keep their names, to be read against.
function groupOf(cell) {
  const own = state.color !== "method" && cell.method === report.ours;
  return own ? (cell[state.color] ?? cell.method_label) : cell.method_label;
}

// Everything that a color can stand for in this part, in one order, whatever the filter leaves.
function groups() {
  const inside = rows.cells.filter((cell) => inPart(cell.part));
  const labels = Object.values(report.methods).map((method) => method.label);
  const known = state.color === "method" ? labels : [...valuesOf(state.color), ...labels];
  const present = new Set(inside.map(groupOf));
  return known.filter((name) => present.has(name));
}

function partsShown() {
  return state.part === ALL ? report.parts : [report.parts[state.part]];
}

function knobsShown() {
  return [...new Set(partsShown().flatMap((part) => Object.keys(part.values)))];
}

function valuesOf(knob) {
  const found = new Set(partsShown().flatMap((part) => part.values[knob] ?? []));
  return report.values[knob].filter((value) => found.has(value));
}

function methodsShown() {
  const found = new Set(rows.cells.filter((cell) => inPart(cell.part)).map((cell) => cell.method));
  return Object.keys(report.methods).filter((method) => found.has(method));
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// A group of checkboxes; none checked means all.
function choices(title, values, chosen, changed) {
  const boxes = values.map(([value, label]) => {
    const box = element("input", { type: "checkbox", value, checked: chosen.has(value) });
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(value);
      else chosen.delete(value);
      changed();
    });
    return element("label", {}, box, label);
  });
  return element("fieldset", {}, element("legend", { textContent: title }), ...boxes);
}

function buildChoices(changed) {
  const methods = methodsShown().map((method) => [method, report.methods[method].label]);
  const place = document.getElementById("choices");
  const knobs = knobsShown().map((knob) => {
    if (!state.knobs.has(knob)) state.knobs.set(knob, new Set());
    const values = valuesOf(knob).map((value) => [value, value]);
    return choices(knob, values, state.knobs.get(knob), changed);
  });
  place.replaceChildren(choices("Method", methods, state.methods, changed), ...knobs);
}

function buildColors() {
  const options = ["method", ...knobsShown()];
  if (!options.includes(state.color)) state.color = "method";
  const color = document.getElementById("color");
  color.replaceChildren(
    ...options.map((value) =>
      element("option", { value, textContent: value, selected: value === state.color }),
    ),
  );
}

// A part begins with nothing chosen, or, once, with what the page's address asks for.
function clearChoices() {
  state.methods = new Set(asked.methods);
  state.knobs = new Map(asked.knobs);
  asked = {};
}

// The view as the page's address: study, part, color, methods, and knobs as knob.<name>.
function address() {
  const { study, title } = report.parts[state.part] ?? {};
  const known = state.part === ALL ? [["part", ALL]] : [["study", study], ["part", title]];
  const color = state.color === "method" ? [] : [["color", state.color]];
  const methods = [...state.methods].map((method) => ["method", method]);
  const knobs = [...state.knobs].flatMap(([knob, values]) =>
    [...values].map((value) => [KNOB + knob, value]),
  );
  return new URLSearchParams([...known, ...color, ...methods, ...knobs]).toString();
}

// What a link asks for, of what this page has; null if the address names no view.
function viewOf(hash) {
  const linked = /^#part-(\d+)$/.exec(hash); // of the summary
  if (linked) return { part: Number(linked[1]) };
  const found = new URLSearchParams(hash.slice(1));
  const title = found.get("part");
  const part = title === ALL ? ALL : partNamed(found.get("study"), title);
  return part === -1 ? null : { part, found };
}

function partNamed(study, title) {
  return report.parts.findIndex((part) => part.study === study && part.title === title);
}

// Sets part and color, and keeps the choices for when they are built.
function take({ part, found }) {
  state.part = part;
  if (!found) return;
  const knobs = knobsShown();
  state.color = knobs.includes(found.get("color")) ? found.get("color") : "method";
  asked = {
    methods: found.getAll("method").filter((method) => methodsShown().includes(method)),
    knobs: knobs.map((knob) => [knob, new Set(chosenOf(knob, found))]),
  };
}

function chosenOf(knob, found) {
  return found.getAll(KNOB + knob).filter((value) => valuesOf(knob).includes(value));
}

function takeAddress() {
  const view = viewOf(location.hash);
  if (view && (view.part === ALL || report.parts[view.part])) take(view);
  return view?.found !== undefined;
}

// A view that nobody changed needs no address, and a link to a part says as much as its view.
function writeAddress() {
  const now = address();
  const linked = viewOf(location.hash);
  const plain = !state.methods.size && state.color === "method" && !chosenKnobs().length;
  if (linked && !linked.found && linked.part === state.part && plain) return;
  if (now !== plainAddress || linked) history.replaceState(null, "", `#${now}`);
}

function chosenKnobs() {
  return [...state.knobs].filter(([, values]) => values.size).map(([knob]) => knob);
}

function followAddress() {
  takeAddress();
  if (!viewOf(location.hash)) writeAddress(); // a link within the page leaves the view as it is
  const part = document.getElementById("part");
  if (part.value === String(state.part) && !Object.keys(asked).length) return;
  part.value = String(state.part);
  partChanged(part.value);
}

const plainAddress = address();
// After others who listen, as what is drawn may change the address.
window.addEventListener("hashchange", () => setTimeout(followAddress));
if (takeAddress()) document.getElementById("explore").scrollIntoView({ behavior: "instant" });

