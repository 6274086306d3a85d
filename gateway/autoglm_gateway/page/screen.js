// The screenshot: chosen, dropped or pasted, and what the model did on it.

const SVG = "http://www.w3.org/2000/svg";
const COORDINATE_MAX = 999;
const $ = (id) => document.getElementById(id);

export class Screen {
  constructor(onError) {
    this.url = null;
    this.onError = onError;
    const phone = $("phone");
    $("file").addEventListener("change", (event) => this.#take(event.target.files[0]));
    for (const name of ["dragenter", "dragover"]) {
      phone.addEventListener(name, (event) => { event.preventDefault(); phone.classList.add("is-over"); });
    }
    for (const name of ["dragleave", "drop"]) phone.addEventListener(name, () => phone.classList.remove("is-over"));
    phone.addEventListener("drop", (event) => { event.preventDefault(); this.#take(event.dataTransfer.files[0]); });
    document.addEventListener("paste", (event) => {
      const file = [...event.clipboardData.files].find((item) => item.type.startsWith("image/"));
      if (file) this.#take(file);
    });
    for (const button of document.querySelectorAll("[data-example]")) {
      button.addEventListener("click", async () => {
        const response = await fetch(`page/examples/${button.dataset.example}`);
        await this.#take(await response.blob());
        button.setAttribute("aria-pressed", "true");
      });
    }
    $("remove").addEventListener("click", () => this.clear());
    new ResizeObserver(() => this.#redraw()).observe($("shot"));
  }

  clear() {
    this.url = null;
    this.where = null;
    this.#show();
  }

  /** Draw a tap or a swipe; null takes the marks away. */
  mark(where) {
    this.where = where;
    this.#redraw();
  }

  async #take(file) {
    if (!file) return;
    if (!file.type.startsWith("image/")) {
      this.onError(`${file.name || "the file"} is no picture: PNG, JPEG or WebP is needed`);
      return;
    }
    this.url = await dataUrl(file);
    this.where = null;
    this.#show();
  }

  #show() {
    for (const button of document.querySelectorAll("[data-example]")) button.setAttribute("aria-pressed", "false");
    $("shot").hidden = !this.url;
    $("drop").hidden = Boolean(this.url);
    $("remove").hidden = !this.url;
    $("file").value = "";
    if (this.url) $("picture").src = this.url;
    this.#redraw();
  }

  #redraw() {
    const marks = $("marks");
    marks.replaceChildren();
    const picture = $("picture");
    if (!this.where || !this.url || !picture.naturalWidth) return;
    // object-fit: contain leaves bars; coordinates belong to the picture, not to its box
    const box = { width: picture.clientWidth, height: picture.clientHeight };
    const scale = Math.min(box.width / picture.naturalWidth, box.height / picture.naturalHeight);
    const size = { width: picture.naturalWidth * scale, height: picture.naturalHeight * scale };
    const at = ([x, y]) => [
      (box.width - size.width) / 2 + (x / COORDINATE_MAX) * size.width,
      (box.height - size.height) / 2 + (y / COORDINATE_MAX) * size.height,
    ];
    const points = this.where.points.map(at);
    if (this.where.kind === "tap") drawTarget(marks, points[0]);
    else drawArrow(marks, points[0], points[1]);
  }
}

export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

// everything twice: wider in white, so that it shows on any screenshot, then in colour
function stroke(marks, path, className = "") {
  for (const [kind, width] of [["mark-halo", 6], ["mark", 3]]) {
    const node = document.createElementNS(SVG, "path");
    node.setAttribute("d", path);
    node.setAttribute("class", `${kind} ${className}`);
    node.setAttribute("stroke-width", width);
    marks.append(node);
  }
}

function drawTarget(marks, [x, y]) {
  const ring = 17;
  stroke(marks, `M${x - ring} ${y}a${ring} ${ring} 0 1 0 ${2 * ring} 0a${ring} ${ring} 0 1 0 ${-2 * ring} 0`, "mark-pulse");
  stroke(marks, [[0, -1], [0, 1], [-1, 0], [1, 0]].map(([dx, dy]) => `M${x + dx * 7} ${y + dy * 7}l${dx * 17} ${dy * 17}`).join(""));
}

function drawArrow(marks, [x1, y1], [x2, y2]) {
  const angle = Math.atan2(y2 - y1, x2 - x1);
  const barb = (turn) => `M${x2} ${y2}l${-14 * Math.cos(angle + turn)} ${-14 * Math.sin(angle + turn)}`;
  stroke(marks, `M${x1} ${y1}L${x2} ${y2}${barb(0.5)}${barb(-0.5)}M${x1 - 5} ${y1}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0`);
}
