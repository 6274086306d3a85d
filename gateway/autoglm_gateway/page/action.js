// The model's answer taken apart: `<think>...</think><answer>do(action="Tap", element=[x,y])</answer>`.

/** Thought and action text of an answer that may still be growing. */
export function splitAnswer(text) {
  const [before, after] = text.includes("</think>") ? split(text, "</think>") : text.includes("<think>") ? [text, ""] : ["", text];
  return { thought: before.replace("<think>", "").trim(), action: after.replace(/<\/?answer>/g, "").trim() };
}

function split(text, mark) {
  const at = text.indexOf(mark);
  return [text.slice(0, at), text.slice(at + mark.length)];
}

/** The points of a complete action, 0 to 999, or null: {kind: "tap" | "swipe", points: [[x, y], ...]}. */
export function pointsOf(action) {
  const point = (name) => action.match(new RegExp(`${name}\\s*=\\s*\\[\\s*(\\d+)\\s*,\\s*(\\d+)\\s*\\]`))?.slice(1).map(Number);
  const element = point("element");
  if (element) return { kind: "tap", points: [element] };
  const start = point("start");
  const end = point("end");
  return start && end ? { kind: "swipe", points: [start, end] } : null;
}

/** The action in words: `Tap (512, 340)`, `Launch WeChat`, or the text itself where it is no action. */
export function describe(action) {
  const message = action.match(/^finish\(\s*message\s*=\s*(["'])([\s\S]*)\1\s*\)$/);
  if (message) return `Finished: ${message[2]}`;
  const name = action.match(/action\s*=\s*(["'])(.*?)\1/)?.[2];
  if (!name) return action;
  const where = pointsOf(action);
  if (where) return `${name} ${where.points.map(([x, y]) => `(${x}, ${y})`).join(" → ")}`;
  const words = [...action.matchAll(/,\s*(?!action\b)\w+\s*=\s*(["'])(.*?)\1/g)].map((match) => match[2]);
  return [name, ...words].join(" ");
}
