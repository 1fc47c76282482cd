// A tensor and its gradient as images, for the chosen row.

function pictureColours(low, high) {
  const most = Math.max(Math.abs(low), Math.abs(high));
  const signed = low < 0 && high > 0;
  return Array.from({ length: 255 }, (_, byte) => {
    const value = low + (byte / 254) * (high - low);
    if (signed) return between(DIVERGING, most ? 0.5 + value / most / 2 : 0.5);
    return between(CIVIDIS, high > low ? byte / 254 : 0.5);
  });
}

function onePicture(tensor, page) {
  const canvas = make("canvas", { class: "picture", role: "img", width: tensor.width, height: tensor.height });
  const zoom = Math.max(1, Math.min(28, Math.floor(320 / Math.max(tensor.width, tensor.height))));
  canvas.style.width = `${tensor.width * zoom}px`;
  if (tensor.height * zoom < 24) canvas.style.height = "24px"; // a long vector would be a thin line
  else canvas.style.aspectRatio = `${tensor.width} / ${tensor.height}`;
  const said = make("figcaption", {});
  function update() {
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const place = tensor.at[page.at()];
    if (place === null) {
      said.textContent = `${tensor.name}: this row has none`;
      canvas.setAttribute("aria-label", said.textContent);
      return;
    }
    const [low, high] = tensor.ranges[place];
    const colours = pictureColours(Number(low), Number(high));
    const size = tensor.width * tensor.height;
    const image = pen.createImageData(tensor.width, tensor.height);
    let broken = false;
    for (let cell = 0; cell < size; cell++) {
      const byte = tensor.cells[place * size + cell];
      broken = broken || byte === 255;
      image.data.set([...(byte === 255 ? BROKEN : colours[byte]), 255], cell * 4);
    }
    pen.putImageData(image, 0, 0);
    const range = low === "nan" ? "no element is finite" : `from ${low} to ${high}${broken ? "; magenta is not finite" : ""}`;
    said.textContent = `${tensor.name} ${tensor.kind}${tensor.whole ? "" : ", by means of blocks"}: ${range}`;
    canvas.setAttribute("aria-label", `${said.textContent}, row ${page.row()}`);
  }
  page.follows(update);
  update();
  return make("figure", {}, canvas, said);
}

function picturesView(target, { tensors }, page) {
  const box = make("div", { class: "pictures" });
  const figures = new Map();
  const figure = (tensor) => {
    if (!figures.has(tensor)) figures.set(tensor, onePicture(tensor, page));
    return figures.get(tensor);
  };
  function choose(place) {
    const tensor = tensors[place];
    const partner = tensors.find((each) => each.name === `${tensor.name}.grad`);
    box.replaceChildren(figure(tensor), ...(partner ? [figure(partner)] : []));
  }
  const [control, list] = choice(
    "Tensor",
    tensors.map((each) => each.name),
    choose,
  );
  const wanted = Math.max(
    0,
    tensors.findIndex((each) => each.name === page.name),
  );
  list.value = wanted;
  target.append(stepper(page), make("div", { class: "controls" }, control), box);
  choose(wanted);
}
