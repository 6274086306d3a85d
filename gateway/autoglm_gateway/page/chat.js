// One streamed chat completion: builds the request body and turns server-sent events into calls.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** What the API takes: every medium is a data: URL, options are left out where the server's default is meant. */
export function requestBody({ model, instruction, pictureUrl, soundUrl, depth, exit }) {
  const content = [];
  if (pictureUrl) content.push({ type: "image_url", image_url: { url: pictureUrl } });
  if (soundUrl) content.push({ type: "input_audio", input_audio: { data: soundUrl.split(",")[1], format: "wav" } });
  if (instruction) content.push({ type: "text", text: instruction });
  const body = {
    model,
    messages: [{ role: "user", content }],
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
    return_token_layers: true,
  };
  if (depth && depth !== "auto") body.depth = /^\d+$/.test(depth) ? Number(depth) : depth;
  if (exit) body.exit = exit;
  return body;
}

/** Sends the body and calls `onChunk` for every chunk. Throws ApiError with the API's own words. */
export async function streamChat(body, { key, signal, onChunk }) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const response = await fetch("v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!response.ok) throw new ApiError(response.status, await errorText(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let isDone = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      // a line that starts with a colon is a keep-alive
      const data = event.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data === "[DONE]") isDone = true;
      else if (data) {
        const chunk = JSON.parse(data);
        if (chunk.error) throw new ApiError(500, chunk.error.message);
        onChunk(chunk);
      }
    }
  }
  if (!isDone) throw new ApiError(500, "the connection ended before the answer did");
}

async function errorText(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}
