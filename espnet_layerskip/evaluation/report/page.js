"use strict";
// The page's own script: without it everything is there, but nothing moves.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = id => document.getElementById(id);
  const make = (parent, name, attributes, text) => {
    const el = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) el.setAttribute(key, value);
    if (text !== undefined) el.textContent = text;
    return parent.appendChild(el);
  };
  const draws = [];

  for (const [name, utt] of Object.entries(data.utterances)) {
    const figure = byId("figure-" + name), svg = figure.querySelector("svg");
    const {features, depth, tokens} = utt.panels;
    const article = figure.closest("article"), audio = article.querySelector("audio");
    const box = figure.querySelector(".drawing"), readout = figure.querySelector(".readout");
    const x = t => features.left + (features.right - features.left) * Math.min(1, t / utt.seconds);
    const y = (panel, v) =>
      panel.bottom - (panel.bottom - panel.top) * (v - panel.y[0]) / (panel.y[1] - panel.y[0]);
    const start = i => Math.min(i * utt.frame, utt.seconds);
    const frames = utt.final.length;
    const live = document.createElementNS(svg.namespaceURI, "g");
    let layersOf = [], tokenAt = {}, at = 0;

    // What one setting makes of the utterance, drawn in place of what the figure came with.
    draws.push(number => {
      const variant = utt.variants[number];
      if (!variant) return;
      for (const old of svg.querySelectorAll(`[id^="${name}-live-"]`)) old.remove();
      live.replaceChildren();
      svg.append(live);
      layersOf = [], tokenAt = {};
      const veil = features.bottom - (features.bottom - features.top) * data.veil_top;
      const bar = (features.bottom - features.top) * data.veil_top * 0.05;
      let outline = `M${x(0)} ${depth.bottom}`;
      for (const [layers, count] of variant.depth) {
        const from = start(layersOf.length), first = x(from);
        for (let i = 0; i < count; i++) layersOf.push(layers);
        const to = layersOf.length === frames ? utt.seconds : start(layersOf.length);
        const width = x(to) - first;
        if (layers < utt.layers)
          make(live, "rect", {class: "veil", x: first, y: veil, width, height: features.bottom - veil});
        else
          make(live, "rect", {class: "runs", x: first, y: veil - 1.6 * bar, width, height: bar});
        outline += `V${y(depth, layers)}H${x(to)}`;
      }
      make(live, "path", {class: "depth", d: `${outline}V${depth.bottom}Z`});
      for (const [frame, label, prob, level] of variant.tokens) {
        const place = x(start(frame) + utt.frame / 2);
        make(live, "path", {class: "stem", d: `M${place} ${y(tokens, 0)}V${y(tokens, prob)}`});
        make(live, "text", {class: "token", x: place, y: y(tokens, 1.07 + 0.21 * level) - 2}, label);
        tokenAt[frame] = label;
      }
      const words = article.querySelector(".text-on");
      words.replaceChildren(...(variant.words.length ? variant.words : [["(nothing)", false]]).flatMap(
        ([word, wrong], i) => {
          const span = document.createElement("span");
          span.textContent = word;
          if (wrong) span.className = "wrong";
          return i ? [" ", span] : [span];
        }));
      show(at);
    });

    // One frame: its numbers, and a line at its place.
    const cursor = make(svg, "path", {class: "cursor"});
    const percent = p => p === null || p === undefined ? "not known" : `${p.toFixed(1)} %`;
    function show(frame, time) {
      at = Math.max(0, Math.min(frames - 1, frame));
      const place = x(time === undefined ? start(at) + utt.frame / 2 : time);
      cursor.setAttribute("d", `M${place} ${features.top}V${depth.bottom}`);
      svg.append(cursor);
      const off = utt.off.filter(([f]) => f === at).map(([, label]) => label)[0];
      readout.textContent = [
        `${start(at).toFixed(2)} s, frame ${at}`,
        ...utt.gates.map(g => `p(blank) after layer ${g.layer}: ${percent(g.blank[at])}`),
        `at the last: ${percent(utt.final[at])}`,
        `layers run: ${layersOf[at] ?? utt.layers} of ${utt.layers}`,
        `token: ${tokenAt[at] ?? "none"} (off: ${off ?? "none"})`,
      ].join(" \u00b7 ");
      return place;
    }
    const timeAt = event => {
      const point = new DOMPoint(event.clientX, event.clientY)
        .matrixTransform(svg.getScreenCTM().inverse());
      return utt.seconds * (point.x - features.left) / (features.right - features.left);
    };
    svg.addEventListener("pointermove", event => {
      const time = timeAt(event);
      if (time >= 0 && time < utt.seconds) show(Math.floor(time / utt.frame));
    });
    svg.addEventListener("click", event => {
      const time = timeAt(event);
      if (audio && time >= 0 && time < utt.seconds) audio.currentTime = time;
    });
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("keydown", event => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (!step) return;
      event.preventDefault();
      show(at + step);
    });
    if (audio) {
      const follow = () => {
        const time = audio.currentTime;
        const place = show(Math.floor(time / utt.frame), Math.min(time, utt.seconds));
        const pixels = place * box.scrollWidth / svg.viewBox.baseVal.width;
        if (!audio.paused && (pixels < box.scrollLeft || pixels > box.scrollLeft + box.clientWidth))
          box.scrollLeft = pixels - box.clientWidth / 8;
      };
      const run = () => {
        if (audio.paused) return;
        follow();
        requestAnimationFrame(run);
      };
      audio.addEventListener("play", run);
      for (const kind of ["timeupdate", "seeked"]) audio.addEventListener(kind, follow);
    }
  }

  // The slider: thresholds of one extension; the last one is off.
  const dial = byId("dial");
  if (dial && data.lines.length) {
    const range = dial.querySelector("input"), select = dial.querySelector("select");
    data.lines.forEach((line, i) => select.append(new Option(line.name, i)));
    const settingAt = () => data.lines[select.value].settings[range.value];
    const update = () => {
      const line = data.lines[select.value];
      range.max = line.settings.length - 1;
      const number = settingAt(), setting = data.settings[number];
      const name = `${setting.threshold}${setting.configured ? " (as configured)" : ""}`;
      range.setAttribute("aria-valuetext", name);
      dial.querySelector("output").textContent = name;
      const about = dial.querySelector(".about");
      about.textContent = setting.about.join(" \u00b7 ");
      about.classList.toggle("failed", setting.failed);
      for (const draw of draws) draw(number);
      for (const old of document.querySelectorAll(".chosen")) old.remove();
      for (const figure of ["wer_flops", "wer_time", "wer_change"]) {
        const marker = byId(`${figure}-row${setting.row}`);
        if (!marker) continue;
        const box = marker.getBBox();
        make(marker.ownerSVGElement, "circle", {
          class: "chosen", r: 8, cx: box.x + box.width / 2, cy: box.y + box.height / 2,
        });
      }
    };
    const first = data.lines.findIndex(line => line.settings.includes(data.configured));
    select.value = Math.max(0, first);
    range.max = data.lines[select.value].settings.length - 1;
    range.value = Math.max(0, data.lines[select.value].settings.indexOf(data.configured));
    range.addEventListener("input", update);
    select.addEventListener("change", update);
    dial.hidden = false;
    update();
  }

  // The filter of transcripts.
  const filter = byId("filter");
  if (filter) {
    const buttons = [...filter.querySelectorAll("button")];
    const articles = [...document.querySelectorAll(".change")];
    const choose = button => {
      const wanted = button.dataset.effects.split(",");
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
      for (const article of articles) article.hidden = !wanted.includes(article.dataset.effect);
    };
    for (const button of buttons) button.addEventListener("click", () => choose(button));
    choose(buttons.find(button => !button.disabled));
    filter.hidden = false;
  }
})();
