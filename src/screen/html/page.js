"use strict";
for (const svg of document.querySelectorAll("svg[data-box]")) {
  const [left, top, right, bottom] = svg.dataset.box.split(" ").map(Number);
  const series = [...svg.querySelectorAll("g[data-points]")].map((group) => ({
    name: group.dataset.name,
    points: group.dataset.points.split("\n").map((point) => {
      const [x, y, at, height] = point.split("\t");
      return { x, y, at: Number(at), height: Number(height) };
    }),
    colour: group.dataset.colour,
  }));
  const stops = [...new Set(series.flatMap((one) => one.points.map((point) => point.at)))].sort((a, b) => a - b);
  if (!stops.length) continue;
  const draw = (name, attributes) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) shape.setAttribute(key, attributes[key]);
    return svg.appendChild(shape);
  };
  const across = svg.dataset.across;
  const line = draw("path", { stroke: "#7d858d", visibility: "hidden" });
  const rings = series.map((one) => draw("circle", { r: 5, fill: "none", stroke: one.colour, "stroke-width": 2, visibility: "hidden" }));
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  svg.parentNode.appendChild(tip);
  let stop = stops.length - 1;
  const nearest = (points, at) => points.reduce((best, point) => (Math.abs(point.at - at) < Math.abs(best.at - at) ? point : best));
  const show = (index) => {
    stop = Math.max(0, Math.min(stops.length - 1, index));
    const at = stops[stop];
    const found = series.map((one) => nearest(one.points, at));
    const here = found.find((point) => point.at === at);
    const lines = [across + " " + here.x];
    series.forEach((one, number) => {
      const point = found[number];
      const away = point.at === at ? "" : " (" + across + " " + point.x + ")";
      lines.push((one.name ? one.name + ": " : svg.dataset.up + ": ") + point.y + away);
      rings[number].setAttribute("cx", point.at);
      rings[number].setAttribute("cy", point.height);
      rings[number].setAttribute("visibility", "visible");
    });
    line.setAttribute("d", "M" + at + " " + top + "V" + bottom);
    line.setAttribute("visibility", "visible");
    tip.textContent = lines.join("\n");
    tip.hidden = false;
    const scale = svg.clientWidth / svg.viewBox.baseVal.width;
    const start = at * scale + 14;
    tip.style.top = top * scale + "px";
    tip.style.left = (start + tip.offsetWidth > svg.clientWidth ? at * scale - 14 - tip.offsetWidth : start) + "px";
  };
  const hide = () => {
    tip.hidden = true;
    for (const shape of [line, ...rings]) shape.setAttribute("visibility", "hidden");
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    if (at < left - 12 || at > right + 12) return hide();
    show(stops.reduce((best, x, index) => (Math.abs(x - at) < Math.abs(stops[best] - at) ? index : best), 0));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: stop - 1, ArrowRight: tip.hidden ? stop : stop + 1, Home: 0, End: stops.length - 1, Escape: null };
    if (!(event.key in steps)) return;
    event.preventDefault();
    if (event.key === "Escape") hide();
    else show(steps[event.key]);
  });
}
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of closed) part.open = false;
});
