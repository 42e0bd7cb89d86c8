// The charts: Vega-Lite over the rows that the filter lets through, a sentence and a table beside each.

const PALETTE = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7"].map((c) => `var(${c})`);
const SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down"];
const OTHERS = ["cross", "triangle-right", "wedge", "triangle-left", "arrow", "stroke"];
const MOST_ROWS = 200; // of the table beside a chart
const TALL = 400; // pixels from which a chart is more than half a page of paper
const views = {};
let turn = 0; // charts of an older filter that come late are dropped

function normalized(row, fields) {
  const scale = report.parts[row.part].scale;
  const width = scale ? scale.high - scale.low : null;
  const changed = Object.fromEntries(
    fields.map((f) => [f, scale && row[f] != null ? (100 * (row[f] - scale.low)) / width : null]),
  );
  return { ...row, ...changed };
}

// Scores of several parts have no common unit but the one that their floor and ceiling give.
function comparable(row, fields) {
  return state.part === ALL ? normalized(row, fields) : row;
}

const SOURCES = {
  cells: () =>
    rows.cells
      .filter((_, i) => passing[i])
      .map((cell) => comparable({ ...cell, group: groupOf(cell) }, ["score", "low", "high"])),
  trials: () =>
    rows.trials
      .filter((trial) => passing[trial.cell])
      .map((trial) => comparable({ ...rows.cells[trial.cell], ...trial }, ["score"])),
  curves: () =>
    rows.curves
      .filter((row) => passing[row.cell])
      .map((row) => {
        const cell = rows.cells[row.cell];
        return comparable({ ...row, part: cell.part, group: groupOf(cell) }, ["value"]);
      }),
  costs: () =>
    rows.costs
      .filter((row) => passing[row.cell])
      .map((row) => {
        const cell = rows.cells[row.cell];
        return comparable({ ...cell, ...row, group: groupOf(cell) }, ["score"]);
      }),
  effects: () => differences(rows.effects).filter((row) => knobPasses(row.knob)),
  shares: () => differences(rows.shares).filter((row) => knobPasses(row.knob)),
  sizes: () => dodged(rows.cells.filter(inSeries)),
  against: () =>
    differences(rows.against).filter((row) => state.part !== ALL || row.method === report.ours),
};

function differences(found) {
  const own = found.filter(
    (row) => inPart(row.part) && (!state.methods.size || state.methods.has(row.method)),
  );
  if (state.part !== ALL) return own;
  return own
    .map((row) => ({ ...row, what: row.change, where: report.parts[row.part].short }))
    .map((row) => ({ ...row, change: `${row.what}, ${row.where}` }))
    .sort((a, b) => inWords(a.what, b.what) || inWords(a.where, b.where));
}

function inWords(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}

// An effect is of a whole grid: a filter on values leaves those of the knobs that it names.
function knobPasses(knob) {
  const chosen = chosenKnobs();
  const named = knob.split(/ with |\+/);
  return !chosen.length || chosen.some((name) => named.includes(name));
}

// The cell that one would take of each method, in every part that differs in training rows alone.
function inSeries(cell) {
  const own = rows.cells.find((one) => one.part === state.part);
  const counted = cell.chosen === "yes" && cell.rows !== null && cell.series === own?.series;
  return counted && (!state.methods.size || state.methods.has(cell.method));
}

// Methods stand a little beside each other, so that their intervals can be told apart.
function dodged(found) {
  const sizes = found.map((cell) => cell.rows);
  const span = Math.max(...sizes) / Math.min(...sizes);
  if (!(span > 1)) return [];
  const methods = methodsShown();
  return found
    .map((cell) => {
      const aside = span ** (0.015 * (methods.indexOf(cell.method) - (methods.length - 1) / 2));
      const change = `${cell.label}, ${cell.rows.toLocaleString("en")} rows`;
      return { ...cell, change, beside: cell.rows * aside };
    })
    .sort((a, b) => a.rows - b.rows || inWords(a.change, b.change));
}

// Ends of intervals that would flatten all else are cut at the panel's edge; arrows stand there.
function framed(found, field) {
  const { low, high } = panel(found, field);
  return found.map((row) => {
    const [from, to] = [row.low ?? row[field], row.high ?? row[field]];
    const cut = { cut_low: from < low, cut_high: to > high };
    return { ...row, ...cut, from: Math.max(from, low), to: Math.min(to, high) };
  });
}

function panel(found, field) {
  const whole = found.filter((row) => row.low != null && row.high != null);
  const all = { low: -Infinity, high: Infinity };
  if (!whole.length) return all;
  const points = found.map((row) => row[field]);
  const [least, most] = [Math.min(...points), Math.max(...points)];
  const halves = whole.map((row) => (row.high - row.low) / 2).sort((a, b) => a - b);
  const room = Math.max((most - least) / 4, 2 * halves[halves.length >> 1]);
  const ends = whole.flatMap((row) => [row.low, row.high]);
  const width = Math.max(...ends, most) - Math.min(...ends, least);
  return width > 1.25 * (most - least + 2 * room) ? { low: least - room, high: most + room } : all;
}

function hasIntervals(chart) {
  return chart.columns.some(([name]) => name === "low");
}

function means(found, by, field) {
  const groups = new Map();
  for (const row of found) {
    const key = JSON.stringify(by.map((name) => row[name]));
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  const averaged = [...groups.values()].map((group) => ({
    ...Object.fromEntries(by.map((name) => [name, group[0][name]])),
    [field]: group.reduce((sum, row) => sum + row[field], 0) / group.length,
    n: group.length,
  }));
  return averaged.sort((a, b) => {
    const name = by.find((n) => a[n] !== b[n]);
    return name === undefined ? 0 : inOrder(a[name], b[name]);
  });
}

function inOrder(a, b) {
  const difference = Number(a) - Number(b);
  return Number.isNaN(difference) ? String(a).localeCompare(String(b)) : difference;
}

// Which tiles are bright enough for black numbers: cividis turns so in the middle.
function brightened(found, field) {
  const numbers = found.map((row) => row[field]);
  const low = Math.min(...numbers);
  const width = Math.max(...numbers) - low;
  return found.map((row) => ({ ...row, bright: width === 0 || (row[field] - low) / width > 0.5 }));
}

function rowsFor(chart) {
  if (state.part === ALL && chart.apart) return [];
  const found = SOURCES[chart.source]().filter((row) =>
    chart.needs.every((name) => row[name] !== null && row[name] !== undefined),
  );
  if (hasIntervals(chart)) return framed(found, chart.extreme[0]);
  if (!chart.tiles) return found;
  const [across, up] = chart.by;
  const averaged = brightened(means(found, chart.by, chart.extreme[0]), chart.extreme[0]);
  const several = (name) => new Set(averaged.map((row) => row[name])).size > 1;
  return several(across) || several(up) ? averaged : [];
}

// Colors and shapes of all there is in the part, so that a filter never changes their meaning.
function scales() {
  const methods = Object.values(report.methods);
  const others = [...OTHERS];
  let next = 0;
  const look = (name) => {
    const own = methods.find((method) => method.label === name);
    if (own && state.color === "method") return [`var(--m-${own.slot})`, own.shape];
    if (own) return ["var(--soft)", others.shift()];
    return [PALETTE[next % PALETTE.length], SHAPES[next++ % SHAPES.length]];
  };
  const pair = (domain) => {
    const looks = domain.map(look);
    const [color, shape] = [0, 1].map((i) => ({ domain, range: looks.map((both) => both[i]) }));
    return { color, shape };
  };
  const labels = methodsShown().map((method) => report.methods[method]);
  const method_label = {
    color: { domain: labels.map((m) => m.label), range: labels.map((m) => `var(--m-${m.slot})`) },
    shape: { domain: labels.map((m) => m.label), range: labels.map((m) => m.shape) },
  };
  return { group: pair(groups()), method_label };
}

// The chart with its scales, and with knobs along its axes in their order.
function prepared(spec, found, bare, texts) {
  const known = scales();
  const orders = { x: (a, b) => inOrder(a, b), y: (a, b) => inOrder(b, a) };
  const walk = (node) => {
    if (node === null || typeof node !== "object" || node === spec.data) return node;
    if (Array.isArray(node)) return node.map(walk);
    const copy = Object.fromEntries(Object.entries(node).map(([k, v]) => [k, walk(v)]));
    for (const channel of ["color", "shape"]) {
      const scale = known[copy[channel]?.field]?.[channel];
      if (!scale) continue;
      const title = copy[channel].field === "group" && state.color !== "method" ? state.color : null;
      copy[channel] = { ...copy[channel], title, scale, ...(bare ? { legend: null } : {}) };
    }
    if (texts && copy.y?.field === "change") copy.y = withTexts(copy.y, texts);
    for (const channel of ["x", "y"]) {
      if (copy[channel]?.type !== "ordinal") continue;
      const values = new Set(found.map((row) => row[copy[channel].field]));
      copy[channel] = { ...copy[channel], sort: [...values].sort(orders[channel]) };
    }
    return copy;
  };
  return walk(spec);
}

const THEME = {
  background: "transparent",
  font: "system-ui, sans-serif",
  aria: false, // the figure around it says it in words
  view: { stroke: null },
  axis: {
    labelColor: "currentColor",
    titleColor: "currentColor",
    tickColor: "currentColor",
    domainColor: "currentColor",
    gridColor: "currentColor",
    gridOpacity: 0.12,
    domainOpacity: 0.5,
    tickOpacity: 0.5,
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: 500,
  },
  legend: {
    labelColor: "currentColor",
    titleColor: "currentColor",
    labelFontSize: 12,
    symbolOpacity: 1,
  },
  rule: { color: "currentColor" },
};
const OPTIONS = { ast: true, actions: false, renderer: "svg", config: THEME };

const LINE = 15; // pixels of a line of a label
const HEAD = "\u001f"; // in a key of the rows' axis that is a heading, one for each of its lines
const ruler = document.createElement("canvas").getContext("2d");

// A text in lines that are no wider than the room; a word that is wider is broken where it must.
function lines(text, room, font = "12px") {
  ruler.font = `${font} ${THEME.font}`;
  const fits = (line) => ruler.measureText(line.trimEnd()).width <= room;
  const made = [""];
  for (const piece of text.split(/(?<=[ +,_])/)) {
    if (fits(made.at(-1) + piece)) made[made.length - 1] += piece;
    else if (fits(piece)) made.push(piece);
    else for (const letter of piece) broken(made, letter, fits);
  }
  return made.map((line) => line.trimEnd()).filter(Boolean);
}

function broken(made, letter, fits) {
  if (fits(made.at(-1) + letter)) made[made.length - 1] += letter;
  else made.push(letter);
}

// Rows that are names: the keys of their axis from top to bottom, and what stands at each. Over
// several parts, what is compared is a heading over the parts' names.
function named(found, room) {
  const texts = new Map();
  for (const row of found) {
    if (row.what !== undefined) {
      lines(row.what, room, "bold 12px").forEach((line, i) => texts.set(row.what + HEAD + i, [line]));
    }
    texts.set(row.change, lines(row.where ?? row.change, room));
  }
  return texts;
}

// As tall as its rows; Vega-Lite's own steps do not go with a width.
function rowsAxis(chart, texts) {
  const most = Math.max(...[...texts.values()].map((text) => text.length));
  return { height: Math.max(chart.spec.height.step, LINE * most + 8) * texts.size, texts };
}

// Vega puts a text's first line at the row; its middle belongs there.
function offsets(texts) {
  const counts = [...texts].map(([key, text]) => [key, text.length]);
  const many = [...new Set(counts.map(([, count]) => count))].filter((count) => count > 1);
  const all = JSON.stringify(Object.fromEntries(counts));
  return many.map((count) => ({
    test: `${all}[datum.value] === ${count}`,
    value: (-LINE * (count - 1)) / 2,
  }));
}

// The axis with its keys in order and their texts.
function withTexts(y, texts) {
  const isHead = `indexof(datum.value, '${HEAD}') >= 0`;
  const labelFontWeight = { condition: { test: isHead, value: "bold" }, value: "normal" };
  const labelExpr = `${JSON.stringify(Object.fromEntries(texts))}[datum.value]`;
  const labelOffset = { condition: offsets(texts), value: 0 };
  const labels = { labelExpr, labelFontWeight, labelOffset, labelLimit: 0, labelLineHeight: LINE };
  const axis = { ...y.axis, ...labels, ticks: false };
  return { ...y, axis, scale: { domain: [...texts.keys()] } };
}

// A legend stands under the plot, which names of rows make narrower.
function columnsIn(chart, width) {
  return Math.max(1, Math.floor((chart.spec.height.step ? 0.55 * width : width) / 170));
}

// One method needs no legend where rows have names.
function alone(chart, found) {
  return Boolean(chart.spec.height.step) && new Set(found.map((row) => row.method)).size < 2;
}

async function draw(chart, mine) {
  const figure = document.getElementById(chart.name);
  const place = figure.querySelector(".plot");
  const found = rowsFor(chart);
  describe(chart, figure, found);
  figure.classList.toggle("nothing", !found.length);
  if (!found.length) {
    views[chart.name]?.finalize();
    delete views[chart.name];
    place.replaceChildren();
    place.hidden = true;
    return;
  }
  place.hidden = false;
  const width = place.clientWidth;
  const byName = Boolean(chart.spec.height.step);
  const { height, texts } = byName
    ? rowsAxis(chart, named(found, 0.42 * width))
    : { height: chart.spec.height };
  place.classList.toggle("tall", height > TALL);
  const spec = prepared(
    {
      ...chart.spec,
      width,
      height,
      autosize: { type: "fit-x", contains: "padding" },
      padding: { left: 4, top: 5, right: 16, bottom: 4 }, // an axis's last label is half outside
      data: { name: "rows", values: found },
      config: { legend: { columns: columnsIn(chart, width) } },
    },
    found,
    alone(chart, found),
    texts,
  );
  const inside = element("div");
  const made = await vegaEmbed(inside, spec, OPTIONS);
  inside.querySelector("svg").setAttribute("aria-hidden", "true"); // the plot around it has words
  if (mine !== turn) {
    made.finalize();
    return;
  }
  views[chart.name]?.finalize();
  views[chart.name] = made;
  place.replaceChildren(inside);
}

// What the chart says in words, and its numbers as a table.
function describe(chart, figure, found) {
  const words = figure.querySelector(".words");
  const lacking = state.part === ALL && chart.apart ? chart.apart : chart.lacking;
  words.textContent = found.length ? sentence(chart, found) : `Nothing to draw: ${lacking}`;
  figure.querySelector(".plot").setAttribute("aria-label", `${chart.title}. ${words.textContent}`);
  const details = figure.querySelector("details");
  details.hidden = !found.length;
  details.ontoggle = () => details.open && tabulate(chart, details, found);
  if (details.open) tabulate(chart, details, found);
}

function tabled(chart, found) {
  return chart.by.length && !chart.tiles ? means(found, chart.by, chart.extreme[0]) : found;
}

function sentence(chart, found) {
  const [field, heading] = chart.extreme;
  const ranked = [...tabled(chart, found)].sort((a, b) => a[field] - b[field]);
  const said = (row) => `${shown(row[field])} (${nameOf(chart, row)})`;
  const count = `${ranked.length.toLocaleString("en")} ${ranked.length === 1 ? chart.noun : chart.nouns}`;
  if (ranked.length === 1) return `${count}: ${heading} ${said(ranked[0])}.`;
  const cut = found.filter((row) => row.cut_low || row.cut_high).length;
  const arrows = cut ? ` Arrows: ${beyond(cut)} beyond the panel; Numbers has the ends.` : "";
  return `${count}. Highest ${heading} ${said(ranked.at(-1))}, lowest ${said(ranked[0])}.${arrows}`;
}

function beyond(cut) {
  return cut === 1 ? "an interval goes" : `${cut} intervals go`;
}

function nameOf(chart, row) {
  const by = chart.by.map((name) => (name === "group" ? row.group : `${name} ${row[name]}`));
  return by.length ? by.join(", ") : (row.change ?? row.label);
}

function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (Math.abs(value) < 1) return String(Number(value.toFixed(3)) || 0); // no minus before a zero
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

function tabulate(chart, details, found) {
  const all = tabled(chart, found);
  const head = chart.columns.map(([, heading]) => element("th", { scope: "col", textContent: heading }));
  const body = all.slice(0, MOST_ROWS).map((row) => {
    const [first, ...rest] = chart.columns.map(([name]) => shown(row[name]));
    return element(
      "tr",
      {},
      element("th", { scope: "row", textContent: first }),
      ...rest.map((text) => element("td", { textContent: text })),
    );
  });
  const note = all.length > MOST_ROWS ? `The first ${MOST_ROWS} of ${all.length}. ` : "";
  const table = element(
    "table",
    {},
    element("caption", { textContent: `${note}${chart.title}` }),
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...body),
  );
  details.querySelector(".scroll").replaceChildren(table);
}

async function drawAll() {
  const mine = ++turn;
  writeAddress();
  await Promise.all(report.charts.map((chart) => draw(chart, mine)));
  if (mine === turn) document.body.dataset.drawn = String(turn);
}
