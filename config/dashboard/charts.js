// Bar charts: what went to clients, and beside it what came from registries.

import { bytes } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600, HEIGHT = 150, TOP = 18, BOTTOM = 20;

function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// `times` has `served_bytes` and `fetched_bytes`; `label` gives the text below one, or "".
export function barChart(title, times, label) {
  const most = Math.max(1, ...times.flatMap((each) => [each.served_bytes, each.fetched_bytes]));
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  const floor = HEIGHT - BOTTOM, slot = WIDTH / times.length;
  svg.append(draw("line", { class: "axis", x1: 0, x2: WIDTH, y1: floor, y2: floor }));
  const peak = Math.max(...times.flatMap((each) => [each.served_bytes, each.fetched_bytes]));
  if (peak > 0) svg.append(draw("text", { x: 0, y: 11 }, bytes(peak)));
  times.forEach((each, number) => {
    const bar = (name, part) => {
      const height = (floor - TOP) * (each[`${name}_bytes`] / most);
      const shown = each[`${name}_bytes`] > 0 ? Math.max(1, height) : 0;
      return draw("rect", {
        class: name,
        x: (number * slot + slot * (0.1 + 0.4 * part)).toFixed(2),
        width: (slot * 0.4).toFixed(2),
        y: (floor - shown).toFixed(2),
        height: shown.toFixed(2),
      });
    };
    svg.append(bar("served", 0), bar("fetched", 1));
    const below = label(each, number);
    if (below) svg.append(draw("text", { x: number * slot + slot / 2, y: HEIGHT - 6, "text-anchor": "middle" }, below));
  });
  return svg;
}
