// Starts the page: each section's view draws when it comes near the screen.

const VIEWS = {
  curves: curvesView,
  steps: stepsView,
  heatmap: heatmapView,
  bands: bandsView,
  pictures: picturesView,
  points: pointsView,
  pointcurves: pointcurvesView,
  coordinates: coordinatesView,
  effects: effectsView,
  pointconfig: pointconfigView,
  rowdifference: rowdifferenceView,
};

function start() {
  const { shared, sections, opensAt } = readData(document);
  const page = shared.points ? makePoints(shared.points) : makePage(shared);
  const pages = new Map(); // of differences, which have rows of their own, by the prefix of their sections
  for (const { name, view, data } of sections) {
    if (view === "rowdifference") pages.set(name.replace(/first$/, ""), makePage(data));
  }
  const pageOf = (name) => [...pages].find(([prefix]) => name.startsWith(prefix))?.[1] ?? page;
  const waiting = new Map(sections.map((section) => [document.getElementById(section.name), section]));
  const show = (element) => {
    const section = waiting.get(element);
    if (!section) return;
    waiting.delete(element);
    VIEWS[section.view](element.querySelector(".view"), section.data, pageOf(section.name));
  };
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) if (entry.isIntersecting) show(entry.target);
    },
    { rootMargin: "600px" },
  );
  for (const element of waiting.keys()) near.observe(element);
  show(waiting.keys().next().value); // the first one is seen at once
  addEventListener("beforeprint", () => [...waiting.keys()].forEach(show));
  watchTheme();
  const opened = opensAt && document.getElementById(opensAt);
  if (opened && !location.hash) {
    show(opened);
    opened.scrollIntoView();
  }
}

start();
