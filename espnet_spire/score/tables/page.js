"use strict";
// The browser of examples: cards made from the JSON in the page, filtered and sorted here.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const count = document.getElementById("count");
  const more = document.getElementById("more");
  const PAGE = 20;
  let found = [];
  let shown = 0;

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function option(select, value, text) {
    const made = element("option", "", text);
    made.value = value;
    select.append(made);
  }

  function fill(name, values) {
    const select = form.elements[name];
    option(select, "", "all");
    for (const [value, text] of values) option(select, value, text);
    if (values.length < 2) select.closest("label").hidden = true;
  }

  function distinct(of, text) {
    const seen = new Map(data.kinds.map((kind) => [of(kind), text(kind)]));
    return [...seen];
  }

  fill("set", distinct((k) => k.set, (k) => k.set));
  fill("task", distinct((k) => k.task, (k) => k.taskName));
  fill("lang", distinct((k) => k.pair, (k) => k.pair));
  fill("run", data.runs.map((name, i) => [String(i), name]));

  // How bad an answer is: the higher, the worse, whatever the metric.
  function badness(example, run) {
    const kind = data.kinds[example.kind];
    const answer = example.answers[run];
    return kind.lower ? answer.score : 100 - answer.score;
  }

  function runsOf(example) {
    const wanted = form.elements.run.value;
    return Object.keys(example.answers).filter((run) => wanted === "" || run === wanted);
  }

  function worst(example) {
    return Math.max(...runsOf(example).map((run) => badness(example, run)));
  }

  function number(name, otherwise) {
    const value = form.elements[name].value;
    return value === "" ? otherwise : Number(value);
  }

  function fits(example) {
    const kind = data.kinds[example.kind];
    for (const name of ["set", "task"]) {
      if (form.elements[name].value && form.elements[name].value !== kind[name]) return false;
    }
    if (form.elements.lang.value && form.elements.lang.value !== kind.pair) return false;
    const runs = runsOf(example);
    const low = number("from", -Infinity);
    const high = number("to", Infinity);
    if (!runs.some((run) => {
      const score = example.answers[run].score;
      return score >= low && score <= high;
    })) return false;
    const words = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return true;
    const texts = [example.utterance, example.reference, example.source || ""];
    for (const run of runs) texts.push(example.answers[run].text);
    const text = texts.join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  function differences(pieces, gap) {
    const line = element("span");
    pieces.forEach(([kind, reference, hypothesis], i) => {
      if (i && gap) line.append(" ");
      if (kind === "=") line.append(reference);
      if (kind === "S" || kind === "D") line.append(element("del", "", reference));
      if (kind === "S" && gap) line.append(" ");
      if (kind === "S" || kind === "I") line.append(element("ins", "", hypothesis));
    });
    return line;
  }

  function paragraph(label, content, lang) {
    const made = element("p");
    made.append(element("span", "who", label));
    const text = element("span");
    if (lang) text.lang = lang;
    text.append(content);
    made.append(text);
    return made;
  }

  function card(example) {
    const kind = data.kinds[example.kind];
    const made = element("article");
    const head = element("header");
    head.append(element("b", "", `${kind.taskName} ${kind.pair}`));
    head.append(element("span", "soft", kind.set), element("span", "soft", example.utterance));
    made.append(head);
    const clip = data.clips[example.clip];
    if (clip && clip.audio) {
      const audio = element("audio");
      audio.controls = true;
      audio.preload = clip.audio.startsWith("data:") ? "metadata" : "none"; // its length is seen
      audio.src = clip.audio;
      audio.setAttribute("aria-label", `utterance ${example.utterance}`);
      made.append(audio);
    }
    if (example.source) made.append(paragraph("Source", example.source, kind.src));
    made.append(paragraph("Reference", example.reference || "(empty)", kind.tgt));
    const raw = element("details");
    raw.append(element("summary", "", "Answers as they were written, all scores, units"));
    for (const run of runsOf(example)) {
      const answer = example.answers[run];
      const label = element("span", "who");
      label.append(data.runs[run] + " ", element("b", "", `${kind.metricName} ${answer.score.toFixed(1)}`));
      if (answer.cut) label.append(element("span", "cut", " cut at the limit of tokens"));
      const line = element("p");
      const text = differences(answer.pieces, answer.gap);
      text.lang = kind.tgt;
      line.append(label, answer.pieces.length ? text : "(empty)");
      made.append(line);
      const scores = Object.entries(answer.scores)
        .map(([name, value]) => `${name} ${value === null ? "–" : value.toFixed(1)}`).join(", ");
      raw.append(paragraph(`${data.runs[run]}: ${scores}`, answer.text || "(empty)", kind.tgt));
    }
    if (clip && clip.units !== undefined) {
      const units = clip.units.split(" ").filter(Boolean);
      const rate = clip.seconds ? `, ${(units.length / clip.seconds).toFixed(0)} a second` : "";
      const line = paragraph(`${units.length} units${rate}`, clip.units);
      line.lastChild.className = "units";
      raw.append(line);
    }
    made.append(raw);
    return made;
  }

  function showMore() {
    for (const example of found.slice(shown, shown + PAGE)) list.append(card(example));
    shown = Math.min(shown + PAGE, found.length);
    more.hidden = shown === found.length;
    more.textContent = `Show ${Math.min(PAGE, found.length - shown)} more`;
    count.textContent = `${found.length} of ${data.examples.length} examples, ${shown} shown`;
  }

  function update() {
    found = data.examples.filter(fits);
    const order = form.elements.order.value;
    const value = new Map(found.map((example) => [example, worst(example)]));
    if (order === "worst") found.sort((a, b) => value.get(b) - value.get(a));
    if (order === "best") found.sort((a, b) => value.get(a) - value.get(b));
    if (order === "name") found.sort((a, b) => (a.utterance < b.utterance ? -1 : a.utterance > b.utterance ? 1 : 0));
    list.replaceChildren();
    shown = 0;
    showMore();
  }

  // Filters may stand in the address: RESULTS.html?task=asr&search=chair
  for (const [name, value] of new URLSearchParams(location.search)) {
    if (form.elements[name]) form.elements[name].value = value;
  }
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  more.addEventListener("click", showMore);
  // One at a time is heard.
  document.addEventListener("play", (event) => {
    for (const audio of document.querySelectorAll("audio")) {
      if (audio !== event.target) audio.pause();
    }
  }, true);
  const others = document.getElementById("others");
  if (others) {
    const rows = document.querySelectorAll("tr.other");
    others.addEventListener("change", () => rows.forEach((row) => { row.hidden = !others.checked; }));
  }
  update();
})();
