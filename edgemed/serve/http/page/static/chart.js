// Latency of the last tasks over time: dots on a logarithmic axis, and each deadline as a line.
const NS = "http://www.w3.org/2000/svg";
const WIDTH = 900, HEIGHT = 260, LEFT = 64, RIGHT = 12, TOP = 12, BOTTOM = 34;

function element(parent, name, attributes, text) {
  const made = parent.appendChild(document.createElementNS(NS, name));
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const spoken = (ms) => (ms >= 1000 ? `${ms / 1000} s` : `${ms} ms`);

export function chart(place, data) {
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Latency of the last ${data.ways.length} tasks over time`);
  if (!data.ways.length) {
    element(svg, "text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "No task has ended since the daemon started.");
    place.replaceChildren(svg);
    return;
  }
  const totals = data.ways.map((way) => Math.max(way.total_ms, 0.1)), limits = Object.values(data.deadlines_ms);
  const low = Math.floor(Math.log10(Math.min(...totals))), high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...totals, ...limits))));
  const span = Math.max(1, ...data.ways.map((way) => way.ago_s));
  const x = (ago) => WIDTH - RIGHT - (ago / span) * (WIDTH - LEFT - RIGHT);
  const y = (ms) => HEIGHT - BOTTOM - ((Math.log10(Math.max(ms, 0.1)) - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  for (let power = low; power <= high; power++) {
    const at = y(10 ** power);
    element(svg, "line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at });
    element(svg, "text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" }, spoken(10 ** power));
  }
  const size = span > 7200 ? [3600, "h"] : span > 120 ? [60, "min"] : [1, "s"];
  for (let step = 0; step <= 4; step++) {
    const ago = (span * step) / 4;
    element(svg, "text", { x: x(ago), y: HEIGHT - 12, "text-anchor": step === 0 ? "end" : "middle" }, step ? `${(ago / size[0]).toFixed(ago / size[0] < 10 ? 1 : 0)} ${size[1]} ago` : "now");
  }
  for (const limit of new Set(limits)) {
    const names = Object.keys(data.deadlines_ms).filter((name) => data.deadlines_ms[name] === limit);
    element(svg, "line", { class: "limit", x1: LEFT, x2: WIDTH - RIGHT, y1: y(limit), y2: y(limit) });
    element(svg, "text", { x: LEFT + 6, y: y(limit) - 5 }, `deadline of ${names.join(", ")}`);
  }
  for (const way of data.ways) {
    const dot = element(svg, "circle", { class: "dot", cx: x(way.ago_s), cy: y(way.total_ms), r: 3 });
    element(dot, "title", {}, `task ${way.task}, ${way.model}: ${way.total_ms.toFixed(1)} ms`);
  }
  place.replaceChildren(svg);
}
