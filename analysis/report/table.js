// Every trial: DataTables over the rows whose cell the filter lets through.

const { default: DataTable } = window.tables;
const KEPT = ["method", "rate", "seed", "score", "selection", "id"]; // shown whatever is in them
let trials;
let allColumns = false;
let arranged; // the part that the columns and their order were made for

function formatted(column) {
  if (!column.number) return undefined;
  const options = column.digits === null ? {} : {
    minimumFractionDigits: column.digits,
    maximumFractionDigits: column.digits,
  };
  // A rate of 0.00003 is no number of two digits: null keeps what is there.
  return (value, kind) => {
    if (kind === "sort" || kind === "type") return value === null ? -Infinity : Number(value);
    if (value === null) return "";
    return column.digits === null ? String(value) : value.toLocaleString("en", options);
  };
}

function escaped(value, kind) {
  if (value === null || value === undefined) return "";
  const text = String(value);
  return kind === "display" ? text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`) : text;
}

// Parts stand in the page's order, and are found by their whole titles.
function partText(value, kind, _trial, { row }) {
  const { part } = rows.cells[rows.trials[row].cell];
  if (kind === "sort" || kind === "type") return part;
  return kind === "filter" ? report.parts[part].title : escaped(value, kind);
}

function renderer(column) {
  return column.name === "part" ? partText : (formatted(column) ?? escaped);
}

function cellValue(trial, column) {
  const cell = rows.cells[trial.cell];
  if (column.name === "part") return report.parts[cell.part].short;
  if (column.name === "study") return report.parts[cell.part].study;
  if (column.name === "method") return cell.method_label;
  return trial[column.name] ?? null;
}

function columnAt(name) {
  return report.columns.findIndex((column) => column.name === name);
}

// Columns that tell the trials of this part from each other; the others are hidden until asked for.
function telling() {
  const own = rows.trials.filter((trial) => inPart(rows.cells[trial.cell].part));
  return report.columns.map(
    (column) =>
      KEPT.includes(column.name) || new Set(own.map((trial) => cellValue(trial, column))).size > 1,
  );
}

function showColumns() {
  telling().forEach((tells, index) => trials.column(index).visible(tells || allColumns, false));
  trials.columns.adjust();
}

// A part's best trial stands first. A reader's own order stays until the part changes.
function arrangeTable() {
  if (trials === undefined || arranged === state.part) return;
  arranged = state.part;
  showColumns();
  const best = columnAt("score") < 0 ? [] : [[columnAt("score"), "desc"]];
  const apart = state.part === ALL ? [[columnAt("study"), "asc"], [columnAt("part"), "asc"]] : [];
  trials.order([...apart, ...best]);
}

function columnSwitch() {
  const box = element("input", { type: "checkbox", id: "all-columns", checked: allColumns });
  box.addEventListener("change", () => {
    allColumns = box.checked;
    showColumns();
  });
  return element("label", { className: "switch" }, box, "Also columns that are the same in every row");
}

function buildTable(counted) {
  DataTable.ext.search.push((_settings, _texts, index) => passing[rows.trials[index].cell]);
  trials = new DataTable("#trials", {
    data: rows.trials.map((trial) => report.columns.map((column) => cellValue(trial, column))),
    columns: report.columns.map((column) => ({
      title: column.title,
      className: column.number ? "number" : "",
      render: renderer(column),
      type: column.number || column.name === "part" ? "num" : "string",
      orderSequence: column.number ? ["desc", "asc"] : ["asc", "desc"],
    })),
    deferRender: true,
    autoWidth: false,
    order: [],
    pageLength: 25,
    lengthMenu: [10, 25, 100, 500],
    layout: { top2Start: columnSwitch },
    language: {
      search: "Search trials:",
      lengthMenu: "_MENU_ rows a page",
      info: "_START_ to _END_ of _TOTAL_ trials",
      infoEmpty: "no trial",
      infoFiltered: "(of _MAX_)",
      emptyTable: "no trial",
      zeroRecords: "No trial passes the filter and the search.",
    },
  });
  trials.on("draw", () => counted(trials.page.info()));
  arrangeTable();
  counted(trials.page.info());
}
