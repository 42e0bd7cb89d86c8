// Every trial: DataTables over the rows whose cell the filter lets through.

const { default: DataTable } = window.tables;
let trials;

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

function cellValue(trial, column) {
  const cell = rows.cells[trial.cell];
  if (column.name === "part") return report.parts[cell.part].title;
  if (column.name === "study") return report.parts[cell.part].study;
  if (column.name === "method") return cell.method_label;
  return (column.of === "cell" ? cell : trial)[column.name] ?? null;
}

function buildTable(counted) {
  DataTable.ext.search.push((_settings, _texts, index) => passing[rows.trials[index].cell]);
  trials = new DataTable("#trials", {
    data: rows.trials.map((trial) => report.columns.map((column) => cellValue(trial, column))),
    columns: report.columns.map((column) => ({
      title: column.title,
      className: column.number ? "number" : "",
      render: formatted(column) ?? escaped,
      type: column.number ? "num" : "string",
    })),
    deferRender: true,
    autoWidth: false,
    order: [],
    pageLength: 25,
    lengthMenu: [10, 25, 100, 500],
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
  counted(trials.page.info());
}
