"use strict";
// What models write goes into the page as text only (textContent), never as HTML.

const at = (id) => document.getElementById(id);
let picture = null;
let asking = null;

function show(id, text) {
  at(id).hidden = text === "";
  at(id).textContent = text;
}

function take(file) {
  if (!file) return;
  if (!/^image\/(png|jpeg|webp|gif)$/.test(file.type)) {
    show("error", "This is not a PNG, JPEG, WEBP or GIF image.");
    return;
  }
  const reader = new FileReader();
  reader.onload = () => {
    picture = reader.result;
    at("preview").src = picture;
    at("preview").hidden = false;
    at("hint").hidden = true;
    show("error", "");
  };
  reader.onerror = () => show("error", "The file cannot be read.");
  reader.readAsDataURL(file);
}

at("file").addEventListener("change", (event) => take(event.target.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));

function clear() {
  at("idle").hidden = true;
  at("answer").hidden = true;
  at("steps").replaceChildren();
  for (const id of ["error", "text", "verdict", "figures"]) show(id, "");
}

function newStep(title) {
  for (const item of at("steps").children) item.classList.remove("now");
  const item = document.createElement("li");
  const head = document.createElement("h3");
  head.textContent = title;
  item.className = "now";
  item.append(head, document.createElement("p"));
  at("steps").append(item);
}

function onEvent(event, began) {
  if (event.error) throw new Error(event.error.message);
  const choice = (event.choices || [])[0];
  const own = event.insightv;
  if (own && own.step) {
    newStep(own.title);
  } else if (choice && choice.delta.reasoning_content) {
    const last = at("steps").lastElementChild;
    if (last) last.querySelector("p").append(choice.delta.reasoning_content);
  }
  if (choice && choice.delta.content) {
    for (const item of at("steps").children) item.classList.remove("now");
    at("answer").hidden = false;
    at("text").hidden = false;
    at("text").append(choice.delta.content);
  }
  if (choice && choice.finish_reason) finish(choice.finish_reason, own);
  if (event.usage) {
    const { prompt_tokens: read, completion_tokens: written } = event.usage;
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    show("figures", `${read} tokens read, ${written} written, ${seconds} s`);
  }
}

function finish(reason, own) {
  const notes = [];
  if (reason === "length") notes.push("The answer was cut off by the token limit.");
  if (reason === "content_filter") notes.push("The model refused to answer.");
  if (own && at("model").value === "insightv") {
    if (own.followed === true) notes.push("It follows the reasoning.");
    if (own.followed === false) notes.push("It overrules the reasoning.");
    if (own.path && own.path.status !== "ok") notes.push(`The reasoning did not end well (${own.path.code}).`);
  }
  show("verdict", notes.join(" "));
  if (notes.length) at("answer").hidden = false;
}

async function readEvents(body, each) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return false;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return true;
      if (line.startsWith("data: ")) each(JSON.parse(line.slice(6)));
    }
  }
}

async function ask() {
  const content = [{ type: "text", text: at("question").value }];
  if (picture) content.push({ type: "image_url", image_url: { url: picture } });
  const began = performance.now();
  const reply = await fetch("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    signal: asking.signal,
    body: JSON.stringify({
      model: at("model").value,
      messages: [{ role: "user", content }],
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
  if (!reply.ok) {
    const form = await reply.json().catch(() => ({}));
    throw new Error(form.error ? form.error.message : `The server answered with status ${reply.status}.`);
  }
  if (!(await readEvents(reply.body, (event) => onEvent(event, began)))) {
    throw new Error("The connection ended before the answer did.");
  }
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (asking) return;
  asking = new AbortController();
  clear();
  at("send").disabled = true;
  at("stop").hidden = false;
  try {
    await ask();
  } catch (error) {
    if (error.name !== "AbortError") show("error", error.message);
    else show("figures", "Stopped.");
  } finally {
    for (const item of at("steps").children) item.classList.remove("now");
    at("send").disabled = false;
    at("stop").hidden = true;
    asking = null;
  }
});
at("stop").addEventListener("click", () => asking && asking.abort());
