// Places the nodes of a graph in layers from left to right, so that each is right of what it comes from.

function layers(nodes) {
  const depth = [];
  nodes.forEach((node, place) => {
    depth[place] = node.from.length ? 1 + Math.max(...node.from.map((source) => depth[source])) : 0;
  });
  const uses = nodes.map(() => []);
  nodes.forEach((node, place) => node.from.forEach((source) => uses[source].push(place)));
  nodes.forEach((node, place) => {
    if (!node.from.length && uses[place].length) depth[place] = Math.min(...uses[place].map((use) => depth[use])) - 1;
  });
  const found = [];
  depth.forEach((layer, place) => (found[layer] ??= []).push(place));
  return found.filter((layer) => layer);
}

// The layers again, with a lane in each layer that an edge crosses, so that no edge runs behind a box.
function laned(nodes) {
  const found = layers(nodes).map((layer) => [...layer]);
  const depth = [];
  found.forEach((layer, column) => layer.forEach((node) => (depth[node] = column)));
  const all = nodes.map(({ from }) => ({ from: [...from] }));
  const lanes = new Map();
  const edges = nodes.flatMap((node, place) =>
    node.from.map((source) => {
      const through = [];
      for (let column = depth[source] + 1; column < depth[place]; column++) {
        const key = `${source} ${column}`;
        if (!lanes.has(key)) {
          lanes.set(key, all.length);
          found[column].push(all.length);
          all.push({ from: [through.at(-1) ?? source] });
        }
        through.push(lanes.get(key));
      }
      if (through.length) all[place].from[node.from.indexOf(source)] = through.at(-1);
      return { source, place, through };
    }),
  );
  return { all, found, edges };
}

function ordered(nodes, found) {
  const height = [];
  const place = (layer) =>
    layer.forEach((node, at) => {
      height[node] = at - (layer.length - 1) / 2;
    });
  found.forEach(place);
  const uses = nodes.map(() => []);
  nodes.forEach((node, at) => node.from.forEach((source) => uses[source].push(at)));
  const mean = (list, own) => (list.length ? list.reduce((sum, node) => sum + height[node], 0) / list.length : own);
  for (let round = 0; round < 4; round++) {
    const forward = round % 2 === 1;
    for (const layer of forward ? found : [...found].reverse()) {
      const wish = new Map(layer.map((node) => [node, mean(forward ? nodes[node].from : uses[node], height[node])]));
      layer.sort((a, b) => wish.get(a) - wish.get(b) || a - b);
      place(layer);
    }
  }
  return found;
}

// The box of each node, and for each edge the points that it passes: from a box, along its lanes, to a box.
function placed(nodes, { width, height, across, down, lane }) {
  const { all, found, edges } = laned(nodes);
  ordered(all, found);
  const tall = (node) => (node < nodes.length ? height : (lane ?? height));
  const sizes = found.map((layer) => layer.reduce((sum, node) => sum + tall(node) + down, -down));
  const tallest = Math.max(...sizes);
  const places = [];
  found.forEach((layer, column) => {
    let top = (tallest - sizes[column]) / 2;
    for (const node of layer) {
      places[node] = { x: column * (width + across), y: top, width, height: tall(node) };
      top += tall(node) + down;
    }
  });
  const middle = (node) => places[node].y + places[node].height / 2;
  const ways = edges.map(({ source, place, through }) => [
    [places[source].x + width, middle(source)],
    ...through.flatMap((node) => [
      [places[node].x, middle(node)],
      [places[node].x + width, middle(node)],
    ]),
    [places[place].x, middle(place)],
  ]);
  const boxes = places.slice(0, nodes.length);
  return { boxes, ways, width: found.length * (width + across) - across, height: tallest };
}
