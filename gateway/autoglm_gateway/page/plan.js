// What of the graph ran: encoders, layers of every token, times.

const $ = (id) => document.getElementById(id);
const SHADES = 4;

export class Plan {
  reset() {
    this.layers = [];
    this.graph = this.usage = null;
    this.firstToken_ms = null;
    this.sent_ms = performance.now();
    $("plan").hidden = true;
    for (const id of ["encoders", "strip", "legend", "figures"]) $(id).replaceChildren();
  }

  /** Take in one chunk of the stream. */
  read(chunk) {
    const choice = chunk.choices[0];
    if (choice?.delta?.content && this.firstToken_ms === null) this.firstToken_ms = performance.now() - this.sent_ms;
    for (const token of choice?.token_layers ?? []) this.layers.push(token);
    if (chunk.dynamic_graph) this.graph = chunk.dynamic_graph;
    if (chunk.usage) this.usage = chunk.usage;
    if (choice?.token_layers?.length || chunk.dynamic_graph) this.#draw();
  }

  finish() {
    this.total_ms = performance.now() - this.sent_ms;
    this.#draw();
    this.#figures();
  }

  #draw() {
    $("plan").hidden = false;
    const graph = this.graph ?? {};
    $("encoders").replaceChildren(
      ...["vision", "speech"].map((name) => {
        // an encoder in neither list found all its items in the cache
        const isSkipped = graph.encoders_skipped?.includes(name) ?? true;
        const fate = isSkipped ? "skipped" : graph.encoders_run?.includes(name) ? "ran" : "cached";
        return item(`${name} encoder ${fate}`, isSkipped ? "is-skipped" : "");
      }),
      ...(graph.depth ? [item(`${graph.exit_mode}, depth ${graph.depth} of ${graph.num_layers}`)] : []),
    );
    const depths = [...new Set(this.layers.map((token) => token.layers))].sort((a, b) => a - b);
    const deepest = graph.num_layers ?? Math.max(...depths, 1);
    const shade = (layers) => `depth-${Math.min(SHADES - 1, Math.ceil((layers / deepest) * SHADES) - 1)}`;
    $("strip").hidden = !this.layers.length;
    $("strip").setAttribute("aria-label", `Layers of each token: ${this.layers.map((token) => token.layers).join(", ")}`);
    $("strip").replaceChildren(...this.layers.map((token) => {
      const cell = document.createElement("i");
      cell.className = shade(token.layers);
      cell.title = `${JSON.stringify(token.text)}: ${token.layers} layers`;
      return cell;
    }));
    $("legend").replaceChildren(...depths.map((depth) => {
      const entry = item(`${depth} layers: ${this.layers.filter((token) => token.layers === depth).length} tokens`);
      const swatch = document.createElement("i");
      swatch.className = shade(depth);
      entry.prepend(swatch);
      return entry;
    }));
  }

  #figures() {
    const tokens = this.usage?.completion_tokens ?? 0;
    const decode_s = (this.total_ms - (this.firstToken_ms ?? this.total_ms)) / 1000;
    const mean = this.layers.reduce((sum, token) => sum + token.layers, 0) / (this.layers.length || 1);
    const rows = [
      ["First token", this.firstToken_ms === null ? "–" : duration(this.firstToken_ms)],
      ["Tokens/second", decode_s > 0 && tokens > 1 ? ((tokens - 1) / decode_s).toFixed(0) : "–"],
      ["Tokens in, out", `${this.usage?.prompt_tokens ?? 0}, ${tokens}`],
      ...(this.layers.length ? [["Layers/token", mean.toFixed(1)]] : []),
      ...(this.graph?.drafts_proposed ? [["Drafts kept", `${this.graph.drafts_accepted} of ${this.graph.drafts_proposed}`]] : []),
    ];
    $("figures").replaceChildren(...rows.map(([name, value]) => {
      const row = document.createElement("div");
      const term = document.createElement("dt");
      const figure = document.createElement("dd");
      term.textContent = name;
      figure.textContent = value;
      row.append(term, figure);
      return row;
    }));
  }
}

function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function item(text, className = "") {
  const node = document.createElement("li");
  node.className = className;
  node.append(text);
  return node;
}
