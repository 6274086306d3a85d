// Wires the page together: form in, stream out.

import { describe, pointsOf, splitAnswer } from "./action.js";
import { requestBody, streamChat } from "./chat.js";
import { Plan } from "./plan.js";
import { Recorder } from "./recorder.js";
import { Screen } from "./screen.js";

const HEALTH_EVERY_MS = 5000;
const $ = (id) => document.getElementById(id);

const screen = new Screen(showError);
const recorder = new Recorder(showError);
const plan = new Plan();
let abort = null;

$("key").value = sessionStorage.getItem("key") ?? "";
$("form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("instruction").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
$("stop").addEventListener("click", () => abort?.abort());
checkHealth();
setInterval(checkHealth, HEALTH_EVERY_MS);

async function send() {
  if (abort) return;
  const instruction = $("instruction").value.trim();
  if (!instruction && !recorder.url) {
    showError("Type or speak an instruction first.");
    $("instruction").focus();
    return;
  }
  abort = new AbortController();
  setBusy(true);
  showError("");
  plan.reset();
  screen.mark(null);
  show("");
  const key = $("key").value.trim();
  sessionStorage.setItem("key", key);
  let text = "";
  try {
    const body = requestBody({
      model: await modelName(key),
      instruction,
      pictureUrl: screen.url,
      soundUrl: recorder.url,
      depth: $("depth").value.trim(),
      exit: $("exit").value,
    });
    $("answer").hidden = false;
    await streamChat(body, {
      key,
      signal: abort.signal,
      onChunk: (chunk) => {
        plan.read(chunk);
        const piece = chunk.choices[0]?.delta?.content;
        if (piece) show((text += piece));
      },
    });
    plan.finish();
    screen.mark(pointsOf(splitAnswer(text).action));
  } catch (error) {
    if (error.name === "AbortError") showError("Stopped.");
    else {
      showError(error.message);
      if (error.status === 401) { $("key-row").hidden = false; $("key").focus(); }
    }
    $("answer").hidden = !text;
  } finally {
    abort = null;
    setBusy(false);
  }
}

async function modelName(key) {
  const response = await fetch("v1/models", { headers: key ? { authorization: `Bearer ${key}` } : {} });
  if (response.ok) return (await response.json()).data[0].id;
  return "autoglm-phone-9b"; // the request itself then says what is wrong
}

function show(text) {
  const { thought, action } = splitAnswer(text);
  $("thought").textContent = thought;
  $("action").textContent = describe(action);
  $("raw").textContent = text;
}

function showError(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

function setBusy(isBusy) {
  $("send").disabled = isBusy;
  $("stop").hidden = !isBusy;
}

async function checkHealth() {
  let words = "no connection";
  let isReady = false;
  try {
    isReady = (await fetch("health/ready")).ok;
    words = isReady ? "ready" : "not ready";
  } catch { /* the words say it */ }
  $("server-text").textContent = words;
  $("server").className = isReady ? "is-ready" : "is-down";
}
