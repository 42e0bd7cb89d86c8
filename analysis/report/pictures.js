// Samples of any cell beside the truth and the untouched base.

const UNTRUE =
  "True drawings are not in this study's folder; running the study draws them. " +
  "(The licenses of some styles keep their drawings out of the repository.)";

function buildPictures() {
  for (const image of document.querySelectorAll("[data-image]")) {
    image.src = report.images[image.dataset.image];
  }
  const picker = document.getElementById("picker");
  if (!picker) return;
  for (const album of document.querySelectorAll(".album")) {
    if (untrue(Number(album.dataset.part))) album.querySelector("h3").after(untruth());
  }
  picker.addEventListener("change", showPicture);
  offerPictures();
}

// Photos of a subject are the truth of a study of subjects.
function untrue(part) {
  return !report.references[part].some(({ kind }) => kind === "truth" || kind === "photos");
}

function untruth() {
  return element("p", { className: "small untrue", textContent: UNTRUE });
}

// The cells whose pictures are in the page, of those that the filter lets through.
function offerPictures() {
  const picker = document.getElementById("picker");
  if (!picker) return;
  for (const album of document.querySelectorAll(".album")) {
    album.hidden = !inPart(Number(album.dataset.part));
  }
  const before = picker.value;
  const offered = report.pictures.filter((picture) => passing[picture.cell]);
  picker.replaceChildren(
    ...offered.map((picture) => {
      const cell = rows.cells[picture.cell];
      const part = state.part === ALL ? `${report.parts[cell.part].title}: ` : "";
      const textContent = `${part}${cell.label} (${picture.score})`;
      const value = picture.id;
      return element("option", { value, textContent, selected: value === before });
    }),
  );
  picker.closest("label").hidden = !offered.length;
  picker.closest(".picker").querySelector("h3").hidden = !offered.length;
  document.getElementById("no-samples").textContent = drew()
    ? "No cell that passes the filter drew pictures."
    : "This part drew no pictures.";
  document.getElementById("samples").hidden = !offered.length;
  document.getElementById("no-samples").hidden = offered.length > 0;
  if (offered.length) showPicture();
}

function drew() {
  return report.pictures.some((picture) => inPart(rows.cells[picture.cell].part));
}

function showPicture() {
  const id = document.getElementById("picker").value;
  const picture = report.pictures.find((one) => one.id === id);
  const cell = rows.cells[picture.cell];
  const strips = [...report.references[cell.part], { label: cell.label, image: picture.image }];
  document.getElementById("strips").replaceChildren(
    ...(untrue(cell.part) ? [untruth()] : []),
    ...strips.map(({ label, image }) =>
      element(
        "figure",
        { className: "strip" },
        element("figcaption", { textContent: label }),
        element("img", { src: report.images[image], alt: `Pictures: ${label}` }),
      ),
    ),
  );
}
