// What the page does beyond being read: charts, the drawn lineage, details that open when chosen.
// Everything it needs is in the page; text goes in as text.
(() => {
  "use strict";
  const { Graph, areaY, dot, layout, lineY, plot, pointer, tip } = globalThis.libraries;
  const DASHES = ["0", "6 4", "2 3", "8 3 2 3"];
  const read = (element) => JSON.parse(element.querySelector("script").textContent);
  const short = (value) => (Number.isInteger(value) ? `${value}` : `${+value.toPrecision(5)}`);

  // -- charts ------------------------------------------------------------------------------------

  function curveMarks(chart) {
    const points = chart.lines.flatMap((line) =>
      line.points.map(([x, y]) => ({ x, y, line })),
    );
    const lines = chart.lines.map((line) =>
      lineY(line.points, {
        x: (point) => point[0],
        y: (point) => point[1],
        stroke: `var(--c${line.color})`,
        strokeDasharray: DASHES[line.dash % DASHES.length],
        strokeOpacity: line.color === 0 ? 1 : 0.6,
        strokeWidth: line.color === 0 ? 1.8 : 1.2,
      }),
    );
    const title = ({ x, y, line }) =>
      `${line.label}\n${chart.x} ${short(x)}\n${chart.y} ${short(y)}`;
    // The current run is on top.
    return [...lines.reverse(), tip(points, pointer({ x: "x", y: "y", maxRadius: Infinity, title }))];
  }

  function historyMarks(chart) {
    const at = { x: (point) => point[0], y: (point) => point[1] };
    const title = ([, y, about]) => `${chart.y} ${short(y)}\n${about}`;
    return [
      lineY(chart.points, { ...at, stroke: "var(--c0)" }),
      dot(chart.points, { ...at, fill: "var(--c0)", r: 4 }),
      tip(chart.points, pointer({ ...at, maxRadius: Infinity, title, lineWidth: 22 })),
    ];
  }

  function commitTicks(chart, width) {
    const last = chart.ticks.length - 1;
    const every = Math.max(1, Math.ceil(chart.ticks.length / Math.max(1, Math.floor(width / 90))));
    return {
      domain: [0, last],
      inset: 20,
      label: null,
      tickFormat: (place) => chart.ticks[place] ?? "",
      ticks: chart.ticks.map((_, place) => place).filter((place) => (last - place) % every === 0),
    };
  }

  function drawChart(holder, chart, log) {
    const width = Math.max(240, Math.floor(holder.clientWidth));
    const history = chart.kind === "history";
    const drawn = plot({
      ariaLabel: `${chart.y} over ${history ? "commits" : chart.x}`,
      height: 220,
      marginLeft: 56,
      marginRight: 16,
      marks: history ? historyMarks(chart) : curveMarks(chart),
      style: { background: "transparent", fontSize: "12px" },
      width,
      x: history ? commitTicks(chart, width) : { label: chart.x, nice: false },
      y: {
        grid: true,
        label: null,
        nice: true,
        tickFormat: large(chart) ? "~s" : undefined,
        ticks: 5,
        type: log ? "log" : "linear",
      },
    });
    drawn.setAttribute("role", "img");
    holder.querySelector("svg")?.remove();
    holder.append(drawn);
  }

  function startChart(figure) {
    const holder = figure.querySelector(".plot");
    const chart = read(holder);
    const log = logarithmic(chart) ? addSwitch(figure) : null;
    const draw = () => drawChart(holder, chart, log?.checked ?? false);
    log?.addEventListener("change", draw);
    let width = 0;
    new ResizeObserver(() => {
      if (holder.clientWidth !== width) {
        width = holder.clientWidth;
        draw();
      }
    }).observe(holder);
  }

  // Their ticks would be wider than the margin.
  const large = (chart) =>
    (chart.kind === "history" ? [chart] : chart.lines).some((line) =>
      line.points.some(([, value]) => Math.abs(value) >= 1e5),
    );

  const logarithmic = (chart) =>
    chart.kind === "curve" &&
    chart.lines.every((line) => line.points.every(([, value]) => value > 0));

  function addSwitch(figure) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    label.append(box, " logarithmic");
    figure.querySelector("figcaption").append(label);
    return box;
  }

  // -- lineage -----------------------------------------------------------------------------------

  const svg = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // Through the points that the layout gave, rounded at each.
  function path(points) {
    const [first, ...rest] = points;
    const last = rest.pop();
    const middle = rest.map((point, index) => {
      const next = rest[index + 1] ?? last;
      const end = next === last ? last : { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
      return `Q${point.x},${point.y} ${end.x},${end.y}`;
    });
    return `M${first.x},${first.y}${middle.join("") || `L${last.x},${last.y}`}`;
  }

  function drawLineage(nav) {
    nav.classList.add("drawn");
    const items = [...nav.querySelectorAll("li")];
    const graph = new Graph().setGraph({ nodesep: 14, ranksep: 34, marginx: 4, marginy: 4 });
    graph.setDefaultEdgeLabel(() => ({}));
    const ids = items.map((item) => item.querySelector("a").hash.slice(1));
    items.forEach((item, index) =>
      graph.setNode(ids[index], { height: item.offsetHeight, width: item.offsetWidth }),
    );
    for (const [from, to] of read(nav)) graph.setEdge(from, to);
    layout(graph);
    items.forEach((item, index) => {
      const { height, width, x, y } = graph.node(ids[index]);
      item.style.left = `${x - width / 2}px`;
      item.style.top = `${y - height / 2}px`;
    });
    const { height, width } = graph.graph();
    const frame = nav.querySelector("ul");
    Object.assign(frame.style, { height: `${height}px`, width: `${width}px` });
    nav.querySelector("svg")?.remove();
    const drawing = svg("svg", { "aria-hidden": "true", height, width });
    drawing.append(arrowhead());
    for (const edge of graph.edges()) {
      const line = svg("path", { d: path(graph.edge(edge).points), "marker-end": "url(#arrow)" });
      Object.assign(line.dataset, { from: edge.v, to: edge.w });
      drawing.append(line);
    }
    frame.prepend(drawing);
  }

  function arrowhead() {
    const size = { id: "arrow", markerHeight: 7, markerUnits: "userSpaceOnUse", markerWidth: 7 };
    const marker = svg("marker", { ...size, orient: "auto", refX: 6, refY: 3.5 });
    marker.append(svg("path", { d: "M0,0L7,3.5L0,7Z" }));
    return marker;
  }

  function near(nav, id) {
    for (const line of nav.querySelectorAll("path[data-from]")) {
      line.classList.toggle("near", line.dataset.from === id || line.dataset.to === id);
    }
  }

  function startLineage(nav) {
    const draw = () => drawLineage(nav);
    draw();
    matchMedia("(max-width: 40rem)").addEventListener("change", draw);
    for (const kind of ["focusin", "mouseover"]) {
      nav.addEventListener(kind, (event) => {
        const link = event.target.closest("a");
        if (link) near(nav, link.hash.slice(1));
      });
    }
  }

  // -- details -----------------------------------------------------------------------------------

  function choose(id) {
    const details = id && document.getElementById(id);
    if (!details || details.tagName !== "DETAILS") return;
    for (const other of details.parentElement.querySelectorAll(":scope > details")) {
      other.open = other === details;
    }
    for (const link of document.querySelectorAll("a.node")) {
      if (link.hash.slice(1) === id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    details.querySelector("summary").focus({ preventScroll: true });
    details.scrollIntoView({ block: "nearest" });
  }

  const here = () => decodeURIComponent(location.hash.slice(1));
  addEventListener("hashchange", () => choose(here()));
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a");
    if (link && link.hash === location.hash && link.hash) choose(here()); // no hashchange then
  });
  document.addEventListener("keydown", (event) => {
    const details = event.key === "Escape" && event.target.closest?.(".details > details");
    if (details) document.querySelector(`a.node[href="#${CSS.escape(details.id)}"]`)?.focus();
  });
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  document.querySelectorAll(".lineage").forEach(startLineage);
  document.querySelectorAll(".chart").forEach(startChart);
  choose(here());
})();
