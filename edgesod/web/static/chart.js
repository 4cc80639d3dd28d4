// Frames a second over time, beside the speeds that papers report.

const SHORTEST_S = 60;
const LONGEST_S = 600;
const PAD = { top: 8, right: 80, bottom: 20, left: 30 };

export class Chart {
  #canvas;
  #lines = [];
  #points = []; // [seconds, frames a second]
  #pointerX = null;

  constructor(canvas, onReading) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    const read = (event) => {
      this.#pointerX = event.type === "pointerleave" ? null : event.offsetX;
      this.draw();
      onReading(this.#reading());
    };
    canvas.addEventListener("pointermove", read);
    canvas.addEventListener("pointerleave", read);
  }

  setLines(lines) {
    this.#lines = lines;
  }

  reset(points) {
    this.#points = points;
    this.draw();
  }

  add(seconds, fps) {
    const last = this.#points.at(-1);
    if (last && seconds - last[0] < 0.5) return; // told again because a switch was used
    this.#points.push([seconds, fps]);
    while (this.#points[0][0] < seconds - LONGEST_S) this.#points.shift();
    this.draw();
  }

  #scale() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const end = this.#points.at(-1)?.[0] ?? 0;
    const span = Math.min(LONGEST_S, Math.max(SHORTEST_S, end - (this.#points[0]?.[0] ?? 0)));
    const most = Math.max(...this.#points.map((p) => p[1]), ...this.#lines.map((l) => l.fps), 1) * 1.12;
    const step = [5, 10, 20, 50, 100, 200, 500, 1000].find((s) => most / s <= 5) ?? 2000;
    const right = width - PAD.right;
    const bottom = height - PAD.bottom;
    return {
      width, height, right, bottom, end, span, most, step,
      x: (t) => right - ((end - t) / span) * (right - PAD.left),
      y: (fps) => bottom - (fps / most) * (bottom - PAD.top),
    };
  }

  #nearest(s) {
    if (this.#pointerX === null || !this.#points.length) return null;
    const distance = (p) => Math.abs(s.x(p[0]) - this.#pointerX);
    return this.#points.reduce((best, p) => (distance(p) < distance(best) ? p : best));
  }

  #reading() {
    const s = this.#scale();
    const point = this.#nearest(s);
    return point && `${point[1].toFixed(1)} fps, ${duration(s.end - point[0])} ago`;
  }

  draw() {
    const canvas = this.#canvas;
    const s = this.#scale();
    if (s.right <= PAD.left) return;
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(s.width * ratio);
    canvas.height = Math.round(s.height * ratio);
    const colour = (name) => getComputedStyle(canvas).getPropertyValue(name).trim();
    const g = canvas.getContext("2d");
    g.scale(ratio, ratio);
    g.font = `11px ${getComputedStyle(canvas).fontFamily}`;
    g.textBaseline = "middle";

    g.lineWidth = 1;
    g.fillStyle = colour("--quiet");
    for (let fps = 0; fps <= s.most; fps += s.step) {
      stroke(g, colour("--line"), [], [[PAD.left, s.y(fps)], [s.right, s.y(fps)]]);
      g.textAlign = "right";
      g.fillText(String(fps), PAD.left - 7, s.y(fps));
    }
    const mostLabels = (s.right - PAD.left) / 60;
    const apart = [10, 20, 30, 60, 120, 300].find((a) => s.span / a <= mostLabels) ?? 600;
    g.textBaseline = "alphabetic";
    for (let back = 0; back <= s.span; back += apart) {
      g.textAlign = back ? "center" : "right";
      if (s.x(s.end - back) > PAD.left + 12) g.fillText(back ? `−${duration(back)}` : "now", s.x(s.end - back), s.height - 4);
    }
    g.textBaseline = "middle";
    g.textAlign = "left";
    let lowest = Infinity; // labels of lines that lie close to each other are moved apart
    for (const { name, fps } of [...this.#lines].sort((a, b) => a.fps - b.fps)) {
      const y = s.y(fps);
      stroke(g, colour("--quiet"), [5, 4], [[PAD.left, y], [s.right, y]]);
      lowest = Math.min(y, lowest - 13);
      g.fillText(`${fps} ${name}`, s.right + 8, lowest);
    }

    if (!this.#points.length) return;
    const path = this.#points.map(([t, fps]) => [s.x(t), s.y(fps)]);
    const shade = g.createLinearGradient(0, PAD.top, 0, s.bottom);
    shade.addColorStop(0, colour("--accent-soft"));
    shade.addColorStop(1, "transparent");
    g.fillStyle = shade;
    g.beginPath();
    g.moveTo(path[0][0], s.bottom);
    for (const [x, y] of path) g.lineTo(x, y);
    g.lineTo(path.at(-1)[0], s.bottom);
    g.fill();
    g.lineWidth = 2;
    g.lineJoin = "round";
    stroke(g, colour("--accent"), [], path);
    const marked = this.#nearest(s) ?? this.#points.at(-1);
    g.fillStyle = colour("--accent");
    g.beginPath();
    g.arc(s.x(marked[0]), s.y(marked[1]), 4, 0, 2 * Math.PI);
    g.fill();
  }
}

function stroke(g, style, dash, points) {
  g.strokeStyle = style;
  g.setLineDash(dash);
  g.beginPath();
  for (const [x, y] of points) g.lineTo(x, y);
  g.stroke();
}

function duration(seconds) {
  const [minutes, rest] = [Math.floor(Math.round(seconds) / 60), Math.round(seconds) % 60];
  return [minutes && `${minutes} min`, (rest || !minutes) && `${rest} s`].filter(Boolean).join(" ");
}
