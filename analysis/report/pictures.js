// Samples of any cell beside the truth and the untouched base.

function buildPictures() {
  for (const image of document.querySelectorAll("[data-image]")) {
    image.src = report.images[image.dataset.image];
  }
  const picker = document.getElementById("picker");
  if (!picker) return;
  picker.addEventListener("change", showPicture);
  offerPictures();
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
  picker.disabled = !offered.length;
  document.getElementById("samples").hidden = !offered.length;
  document.getElementById("no-samples").hidden = offered.length > 0;
  if (offered.length) showPicture();
}

function showPicture() {
  const id = document.getElementById("picker").value;
  const picture = report.pictures.find((one) => one.id === id);
  const cell = rows.cells[picture.cell];
  const strips = [...report.references[cell.part], { label: cell.label, image: picture.image }];
  document.getElementById("strips").replaceChildren(
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
