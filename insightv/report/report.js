"use strict";
// The browser of paths. Texts of models and data become text nodes and nothing else; a list row exists only in view.
(() => {
  const OUTCOMES = ["high", "mid", "low", "wrong", "unscored", "rejected", "failed"];
  const ROW = 60; // pixels, as .row in the style sheet
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = data.questions.flatMap((question, q) => question.paths.map((path) => ({ question, q, path })));
  const root = document.getElementById("browser");
  let found = all;
  let current = -1; // place in `found`

  function el(name, props, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(props || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }
  const text = (name, value, props) => el(name, { dir: "auto", ...props }, String(value));
  const number = (value) => value.toLocaleString("en");
  const scored = (path) => (path.score === undefined ? "" : String(Math.round(path.score * 10) / 10));

  if (!all.length) {
    root.append(el("p", { class: "note" }, "No question of this run is done yet, so there is no path to show."));
    return;
  }

  // ---- filters ----
  const counted = (key) => {
    const counts = new Map();
    for (const item of all) for (const one of key(item.path)) counts.set(one, (counts.get(one) || 0) + 1);
    return counts;
  };
  const outcomes = counted((path) => [path.outcome]);
  const codes = counted((path) => (path.code ? [path.code] : []));
  const VERDICTS = [["accepted", true], ["refused", false], ["could not judge", undefined]];
  const verdict = (score) => VERDICTS.findIndex((one) => one[1] === score.ok);
  const judged = counted((path) => (path.scores || []).map((score) => JSON.stringify([score.by, verdict(score)])));
  const wanted = new Set();

  const chips = OUTCOMES.filter((name) => outcomes.has(name)).map((name) =>
    el("button", {
      type: "button", class: "chip", "aria-pressed": "false", "data-outcome": name,
      onclick: (event) => {
        if (!wanted.delete(name)) wanted.add(name);
        event.currentTarget.setAttribute("aria-pressed", String(wanted.has(name)));
        filter();
      },
    }, el("i", { class: `swatch o-${name}` }), `${name} ${number(outcomes.get(name))}`));

  const select = (label, options) => {
    const box = el("select", { "aria-label": label, onchange: () => filter() });
    for (const [value, shown] of options) box.append(el("option", { value }, shown));
    return box;
  };
  const named = (counts, show) => [...counts].sort((a, b) => b[1] - a[1]).slice(0, 300)
    .map(([value, count]) => [value, `${show(value)} (${number(count)})`]);
  const byCode = select("code", [["", "any code"], ...named(codes, (code) => code)]);
  const byScorer = select("scorer", [["", "any scorer"], ...named(judged, (key) => {
    const [scorer, at] = JSON.parse(key);
    return `${scorer} ${VERDICTS[at][0]}`;
  })]);
  const order = select("order", [
    ["run", "in the run's order"], ["best", "best score first"], ["worst", "worst score first"],
    ["long", "most steps first"], ["short", "fewest steps first"],
  ]);
  const bound = (label, placeholder) =>
    el("input", { type: "number", min: "1", max: "100", "aria-label": label, placeholder, oninput: () => soon() });
  const low = bound("lowest score", "score from");
  const high = bound("highest score", "to");
  const faulty = el("input", { type: "checkbox", onchange: () => filter() });
  const search = el("input", {
    type: "search", "aria-label": "text", placeholder: "text, answer or id  ( / )", oninput: () => soon(),
    onkeydown: (event) => { if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); list.focus(); } },
  });
  const said = el("p", { class: "note", role: "status" });
  const clear = el("button", { type: "button", onclick: () => reset() }, "Clear");

  let timer = 0;
  const soon = () => { clearTimeout(timer); timer = setTimeout(filter, 120); };

  function haystack(item) {
    if (item.hay === undefined) {
      const { question, path } = item;
      item.hay = [
        question.id, question.text, question.answer, path.answer, path.code, path.detail, path.model,
        ...(question.choices || []), ...(path.steps || []).flat(), ...(path.scores || []).map((score) => score.why),
      ].filter(Boolean).join("\n").toLowerCase();
    }
    return item.hay;
  }

  function filter() {
    clearTimeout(timer);
    const words = [...search.value.toLowerCase().matchAll(/"([^"]+)"?|\S+/g)].map((one) => one[1] || one[0]);
    const from = low.value === "" ? null : Number(low.value);
    const to = high.value === "" ? null : Number(high.value);
    found = all.filter((item) => {
      const path = item.path;
      return (!wanted.size || wanted.has(path.outcome)) && (!byCode.value || path.code === byCode.value)
        && (from === null || path.score >= from) && (to === null || path.score <= to)
        && (!faulty.checked || path.fault !== undefined)
        && (!byScorer.value
          || (path.scores || []).some((score) => JSON.stringify([score.by, verdict(score)]) === byScorer.value))
        && words.every((word) => haystack(item).includes(word));
    });
    const rank = {
      best: (path) => -(path.score ?? -1), worst: (path) => path.score ?? 1000,
      long: (path) => -(path.steps || []).length, short: (path) => (path.steps || []).length,
    }[order.value];
    if (rank) found.sort((a, b) => rank(a.path) - rank(b.path));
    said.textContent = found.length === all.length
      ? `${number(all.length)} paths` : `${number(found.length)} of ${number(all.length)} paths`;
    list.scrollTop = 0;
    choose(0);
  }

  function reset() {
    wanted.clear();
    for (const chip of chips) chip.setAttribute("aria-pressed", "false");
    for (const box of [byCode, byScorer, low, high, search]) box.value = "";
    order.value = "run";
    faulty.checked = false;
    filter();
  }

  // ---- the list ----
  const rows = el("div", { class: "rows", role: "presentation" });
  const list = el("div", {
    class: "list", role: "listbox", tabindex: "0", "aria-label": "paths", onscroll: () => requestAnimationFrame(draw),
    onkeydown: (event) => {
      const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
      const to = {
        ArrowDown: current + 1, ArrowUp: current - 1, PageDown: current + page, PageUp: current - page,
        Home: 0, End: found.length - 1,
      }[event.key];
      if (to !== undefined) choose(Math.min(Math.max(to, 0), found.length - 1));
      else if (event.key === "Enter") open();
      else return;
      event.preventDefault();
    },
  }, rows);

  function thumbnail(question) {
    const image = data.images[(question.images || []).find((place) => typeof place === "number" && data.images[place].url)];
    return image ? el("img", { src: image.url, alt: "", decoding: "async" }) : el("span", { class: "noimg" });
  }

  function draw() {
    rows.style.height = `${found.length * ROW}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(found.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    const drawn = [];
    for (let at = first; at < last; at++) {
      const { question, path } = found[at];
      const row = el("div", {
        class: "row", role: "option", id: `row-${at}`, "aria-selected": String(at === current),
        "aria-setsize": found.length, "aria-posinset": at + 1, onclick: () => { choose(at); open(); },
      }, thumbnail(question), el("div", { class: "two" },
        el("div", { class: "line" }, badge(path), text("span", question.id, { class: "id" }), ` #${path.n}`),
        text("div", question.text.slice(0, 200), { class: "line" })));
      row.style.top = `${at * ROW}px`;
      drawn.push(row);
    }
    rows.replaceChildren(...drawn);
  }

  const badge = (path) =>
    el("span", { class: "badge" }, el("i", { class: `swatch o-${path.outcome}` }), path.outcome,
      path.score === undefined ? null : el("b", {}, ` ${scored(path)}`));

  function choose(at) {
    current = found.length ? at : -1;
    if (current >= 0) {
      const top = current * ROW;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
      list.setAttribute("aria-activedescendant", `row-${current}`);
    } else list.removeAttribute("aria-activedescendant");
    draw();
    detail.replaceChildren(...(current < 0 ? [el("p", { class: "note" }, "No path fits these filters.")] : told(found[current])));
    detail.scrollTop = 0;
  }

  // ---- one path in full ----
  const detail = el("article", { class: "detail", tabindex: "0", "aria-label": "the chosen path" });
  const open = () => root.classList.add("open");
  const back = el("button", {
    type: "button", class: "back", onclick: () => { root.classList.remove("open"); draw(); list.focus(); },
  }, "← Back to the list");

  function figure(place) {
    if (typeof place === "string") return text("p", `The picture was never opened: ${place}`, { class: "note" });
    const image = data.images[place];
    if (!image.url) return text("p", `Picture ${image.name.slice(0, 12)}…: ${image.why}`, { class: "note" });
    const size = image.full ? `${image.full[0]} × ${image.full[1]}` : "";
    const grow = el("button", {
      type: "button", class: "picture", "aria-pressed": "false", title: "larger or smaller",
      onclick: () => grow.setAttribute("aria-pressed", String(grow.getAttribute("aria-pressed") !== "true")),
    }, el("img", { src: image.url, alt: "picture of the question" }));
    return el("figure", {}, grow,
      el("figcaption", {}, `${size}${image.smaller ? ", shown smaller" : ""} · ${image.name.slice(0, 12)}…`));
  }

  function answers({ question, path }) {
    const score = (path.scores || []).find((one) => one.by === "answer");
    const mark = { true: ["right", "✓ right"], false: ["wrong", "✗ wrong"], undefined: ["open", "? not judged"] }[String(score?.ok)];
    const pairs = el("dl", { class: "answers" });
    if (path.answer !== undefined)
      pairs.append(el("div", { class: mark[0] }, el("dt", {}, "answer of the path"), text("dd", path.answer), el("dd", { class: "mark" }, mark[1])));
    if (question.answer !== undefined)
      pairs.append(el("div", {}, el("dt", {}, "true answer"), text("dd", question.answer)));
    return pairs;
  }

  function steps(path) {
    const items = (path.steps || []).map(([title, content], at) => {
      const first = path.fault === at + 1;
      return el("li", { class: first ? "fault" : path.fault < at + 1 ? "after" : null },
        el("h4", {}, text("span", title), first ? el("em", {}, "first faulty step") : null), text("p", content || ""));
    });
    return items.length ? el("ol", { class: "steps" }, ...items) : el("p", { class: "note" }, "This path has no step.");
  }

  function judgement(score) {
    const [word] = VERDICTS[verdict(score)];
    const more = Object.entries(score.more || {}).map(([name, value]) =>
      el("div", {}, text("dt", name.replaceAll("_", " ")), text("dd", value)));
    return el("div", { class: "score" },
      el("p", {}, text("b", score.by), score.value === undefined ? "" : ` ${scored({ score: score.value })} of 100`,
        el("span", { class: `verdict v${verdict(score)}` }, word)),
      score.why ? text("p", score.why) : null,
      more.length ? el("details", {}, el("summary", {}, "details"), el("dl", { class: "facts" }, ...more)) : null);
  }

  function siblings({ question, path }) {
    return el("div", { class: "siblings", role: "group", "aria-label": "paths of this question" },
      ...question.paths.map((one) => el("button", {
        type: "button", class: "chip", "aria-current": one === path ? "true" : null,
        onclick: () => {
          const at = found.findIndex((item) => item.path === one);
          if (at >= 0) choose(at);
          else detail.replaceChildren(...told({ question, path: one }));
        },
      }, `#${one.n} `, badge(one))));
  }

  function told(item) {
    const { question, path } = item;
    const [prompt, cached, completion, requests] = path.usage || [0, 0, 0, 0];
    const facts = [["model", path.model], ["seed", path.seed], ["requests", number(requests)],
      ["prompt tokens", `${number(prompt)} (${number(cached)} cached)`], ["completion tokens", number(completion)],
      ["flags", (path.flags || []).join(", ")]].filter((pair) => pair[1] !== undefined && pair[1] !== "");
    return [
      back,
      el("h3", {}, text("span", question.id), ` #${path.n} `, badge(path)),
      siblings(item),
      el("div", { class: "pictures" }, ...(question.images || []).map(figure)),
      text("p", question.text, { class: "question" }),
      question.choices ? el("ol", { class: "choices", type: "A" }, ...question.choices.map((one) => text("li", one))) : null,
      answers(item),
      path.code ? el("div", { class: "warning" }, text("b", `${path.outcome}: ${path.code}`), text("p", path.detail || "")) : null,
      steps(path),
      ...(path.scores || []).map(judgement),
      el("dl", { class: "facts" }, ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), text("dd", value)))),
    ].filter(Boolean);
  }

  // ---- the whole ----
  root.append(
    el("div", { class: "filters" },
      el("div", { class: "line" }, ...chips),
      el("div", { class: "line" }, search, byScorer, codes.size ? byCode : null, low, high,
        el("label", {}, faulty, " with a faulty step"), order, clear),
      said),
    el("div", { class: "panes" }, list, detail),
    el("p", { class: "note keys" }, "Text: every word must be there, \"words in quotes\" as they stand. Keys: / to search · ↑ ↓ PageUp PageDown Home End in the list · Enter opens a path on a narrow screen."));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    event.preventDefault();
    search.focus();
    search.scrollIntoView({ block: "center" });
  });
  new ResizeObserver(() => draw()).observe(list);
  filter();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
