// What of the graph ran: encoders, layers of every token, times.

const $ = (id) => document.getElementById(id);
const SHADES = 4;

export class Plan {
  reset() {
    this.layers = [];
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
    const ran = new Set(graph.encoders_run ?? []);
    $("encoders").replaceChildren(
      ...["vision", "speech"].map((name) => item(`${name} encoder ${ran.has(name) ? "ran" : "skipped"}`, ran.has(name) ? "" : "is-skipped")),
      ...(graph.depth ? [item(`${graph.exit_mode}, depth ${graph.depth} of ${graph.num_layers}`)] : []),
    );
    const depths = [...new Set(this.layers.map((token) => token.layers))].sort((a, b) => a - b);
    const deepest = graph.num_layers ?? Math.max(...depths, 1);
    const shade = (layers) => `depth-${Math.min(SHADES - 1, Math.ceil((layers / deepest) * SHADES) - 1)}`;
    $("strip").hidden = !this.layers.length;
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
      ["First token", this.firstToken_ms === null ? "–" : `${Math.round(this.firstToken_ms)} ms`],
      ["Tokens per second", decode_s > 0 && tokens > 1 ? ((tokens - 1) / decode_s).toFixed(0) : "–"],
      ["Prompt, answer", `${this.usage?.prompt_tokens ?? 0}, ${tokens} tokens`],
      ...(this.layers.length ? [["Layers per token", mean.toFixed(1)]] : []),
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

function item(text, className = "") {
  const node = document.createElement("li");
  node.className = className;
  node.append(text);
  return node;
}
