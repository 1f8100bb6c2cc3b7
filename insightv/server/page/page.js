"use strict";
// What models write goes into the page as text only (textContent), never as HTML.

const at = (id) => document.getElementById(id);
let picture = null;
let asking = null;

function show(id, text) {
  at(id).hidden = text === "";
  at(id).textContent = text;
}

function put(source) {
  picture = source;
  if (source) at("preview").src = source;
  else at("preview").removeAttribute("src");
  at("preview").hidden = at("remove").hidden = !source;
  at("hint").hidden = Boolean(source);
  at("drop").classList.toggle("filled", Boolean(source));
}

function take(file) {
  if (!file) return;
  if (!/^image\/(png|jpeg|webp|gif)$/.test(file.type)) {
    show("error", "This is not a PNG, JPEG, WEBP or GIF image.");
    return;
  }
  const reader = new FileReader();
  reader.onload = () => {
    put(reader.result);
    show("error", "");
  };
  reader.onerror = () => show("error", "The file cannot be read.");
  reader.readAsDataURL(file);
}

at("file").addEventListener("change", (event) => take(event.target.files[0]));
at("remove").addEventListener("click", () => {
  at("file").value = "";
  put(null);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));

function clear() {
  at("idle").hidden = at("reasoning").hidden = at("answer").hidden = true;
  at("steps").replaceChildren();
  for (const id of ["error", "ended", "text", "verdict", "figures"]) show(id, "");
}

function settle() {
  for (const item of at("steps").children) item.classList.remove("now");
}

function newStep(title) {
  settle();
  at("reasoning").hidden = false;
  const item = document.createElement("li");
  const head = document.createElement("h3");
  head.textContent = title;
  item.className = "now";
  item.append(head, document.createElement("p"));
  at("steps").append(item);
}

const ENDS = {
  deadline: "the time for it was up",
  step_limit: "it reached the limit of steps",
  truncated: "it reached the limit of tokens",
  refusal: "the model refused",
  connection: "the engine cannot be reached",
};

function pathDone(path) {
  settle();
  if (asking.model === "insightv-summary") return;
  asking.doing = path.steps ? "Judging the reasoning" : "Answering from the image";
  if (path.status === "ok") return;
  at("reasoning").hidden = false;
  show("ended", `The reasoning did not end well: ${ENDS[path.code] || path.code}.`);
}

function onEvent(event) {
  if (event.error) throw new Error(event.error.message);
  const choice = (event.choices || [])[0];
  const own = event.insightv || {};
  if (own.step) {
    newStep(own.title);
  } else if (choice && choice.delta.reasoning_content) {
    const last = at("steps").lastElementChild;
    if (last) last.querySelector("p").append(choice.delta.reasoning_content);
  }
  if (choice && choice.delta.content) {
    at("answer").hidden = at("text").hidden = false;
    at("text").append(choice.delta.content);
  }
  if (choice && choice.finish_reason) finish(choice.finish_reason, own);
  else if (own.path) pathDone(own.path);
  if (event.usage) {
    const { prompt_tokens: read, completion_tokens: written } = event.usage;
    show("figures", `${count(read)} tokens read, ${count(written)} written, ${asking.seconds()} s`);
  }
}

const count = (number) => number.toLocaleString("en");

function finish(reason, own) {
  const notes = [];
  if (reason === "length") notes.push("The answer was cut off by the token limit.");
  if (reason === "content_filter") notes.push("The model refused to answer.");
  if (asking.model === "insightv" && own.followed === true) notes.push("✓ Follows the reasoning");
  if (asking.model === "insightv" && own.followed === false) notes.push("↷ Overrules the reasoning");
  at("verdict").className = own.followed === true ? "good" : notes.length ? "warn" : "";
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
  const reply = await fetch("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    signal: asking.signal,
    body: JSON.stringify({
      model: asking.model,
      messages: [{ role: "user", content }],
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
  if (!reply.ok) {
    const form = await reply.json().catch(() => ({}));
    throw new Error(form.error ? form.error.message : `The server answered with status ${reply.status}.`);
  }
  if (!(await readEvents(reply.body, onEvent))) {
    throw new Error("The connection ended before the answer did.");
  }
}

function newAsking() {
  const control = new AbortController();
  const began = performance.now();
  const model = at("model").value;
  return {
    model,
    doing: model === "insightv-summary" ? "Answering" : "Reasoning",
    signal: control.signal,
    abort: () => control.abort(),
    seconds: () => ((performance.now() - began) / 1000).toFixed(1),
  };
}

const tell = () => show("status", `${asking.doing}, ${asking.seconds()} s`);

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (asking) return;
  asking = newAsking();
  clear();
  at("send").disabled = true;
  at("stop").hidden = false;
  tell();
  const clock = setInterval(tell, 200);
  try {
    await ask();
  } catch (error) {
    if (error.name !== "AbortError") show("error", error.message);
    else show("figures", "Stopped.");
  } finally {
    clearInterval(clock);
    settle();
    show("status", "");
    at("send").disabled = false;
    at("stop").hidden = true;
    asking = null;
  }
});
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("stop").addEventListener("click", () => asking && asking.abort());
