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

function ordered(nodes) {
  const found = layers(nodes);
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

function placed(nodes, { width, height, across, down }) {
  const found = ordered(nodes);
  const tallest = Math.max(...found.map((layer) => layer.length));
  const boxes = [];
  found.forEach((layer, column) =>
    layer.forEach((node, at) => {
      const top = ((tallest - layer.length) / 2 + at) * (height + down);
      boxes[node] = { x: column * (width + across), y: top, width, height };
    }),
  );
  return { boxes, width: found.length * (width + across) - across, height: tallest * (height + down) - down };
}
