"""Open pages in a real headless Chromium, in a frame of a wanted width, and look at them.

A small local server hands out the pages inside a wrapper whose script measures them and sends
the findings back. A page is in a frame because headless windows are 500 px wide at least. One
start of the browser serves all pages and widths.
"""

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT = 180.0

WRAPPER = """<!DOCTYPE html>
<link rel="icon" href="data:,">
<body></body>
<script>
function media(one) {
  return new Promise(resolve => {
    const done = () => resolve({duration: one.duration, error: one.error && one.error.message});
    if (one.readyState >= 1 || one.error) return done();
    one.addEventListener("loadedmetadata", done);
    one.addEventListener("error", done);
    setTimeout(done, 30000);
  });
}
function scrolled(el) {
  for (; el; el = el.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(el).overflowX)) return true;
  return false;
}
// The browser prefers dark: a light page is one whose rules for dark are turned off.
function paint(doc, dark) {
  for (const sheet of doc.styleSheets)
    for (const rule of sheet.cssRules)
      if (rule.media && (rule.origin ??= rule.media.mediaText).includes("dark"))
        rule.media.mediaText = dark ? rule.origin : "not all";
}
function meet(a, b) {
  return Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
}
// Texts of figures that cover each other or are cut.
function bad_texts(doc) {
  const found = [];
  for (const svg of doc.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].filter(t => t.textContent.trim())
      .map(t => [t.textContent, t.getBoundingClientRect()]);
    texts.forEach(([text, box], i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1
          || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) found.push(text + " is cut");
      for (const [other, place] of texts.slice(i + 1))
        if (meet(box, place)) found.push(text + " covers " + other);
    });
  }
  return found;
}
async function look(win, doc) {
  const root = doc.documentElement;
  const box = el => { const r = el.getBoundingClientRect(); return [r.width, r.height]; };
  const seen = el => el.getClientRects().length > 0;
  const wide = [...doc.body.querySelectorAll("*")].filter(el =>
    !(el instanceof win.SVGElement && el.ownerSVGElement) && !scrolled(el.parentElement)
    && el.getBoundingClientRect().right > root.clientWidth + 1);
  return {
    inner_width: win.innerWidth,
    scroll_width: root.scrollWidth,
    wide: wide.map(el => el.tagName + "." + el.className + " " + el.textContent.slice(0, 40)),
    images: [...doc.querySelectorAll("img, svg, image")].map(box),
    broken: [...doc.images].filter(i => !i.complete || !i.naturalWidth).length,
    texts: doc.querySelectorAll("svg text").length,
    bad_texts: bad_texts(doc),
    audio: await Promise.all([...doc.querySelectorAll("audio")].map(media)),
    resources: win.performance.getEntriesByType("resource").map(e => e.name.slice(0, 80)),
    small: [...doc.querySelectorAll("a, summary, audio, button, input, select")].filter(
      el => seen(el) && el.getBoundingClientRect().height < 16).length,
  };
}
function colors(win, doc) {
  const style = win.getComputedStyle(doc.body), veil = doc.querySelector(".veil");
  return {background: style.backgroundColor, color: style.color,
          veil: veil && win.getComputedStyle(veil).fill};
}
// The calculator's answers.
function calculate(win, doc) {
  const input = name => doc.getElementById(name);
  return [[0, 50, 9, "96"], [1, 90, 3, "96"], [0.3, 90, 3, "512"]].map(values => {
    const names = ["seconds", "skipped", "gate", "width"];
    names.forEach((name, i) => { input(name).value = values[i]; });
    doc.forms[0].dispatchEvent(new win.Event("input"));
    const labels = [...doc.querySelectorAll("output")].map(output => output.textContent);
    return [values, labels, input("answer").textContent, input("why").textContent];
  });
}
// Use what the page's script offers; return what can be seen then.
async function use(win, doc) {
  if (doc.getElementById("answer")) return calculate(win, doc);
  if (!doc.getElementById("dial")) return null;
  const [range, select, about] = ["input", "select", ".about"].map(
    name => doc.querySelector("#dial " + name));
  const example = doc.querySelector("article.example"), svg = example.querySelector("svg");
  const state = () => ({
    setting: doc.querySelector("#dial output").textContent,
    about: about.textContent,
    depth: svg.querySelector(".depth").getAttribute("d"),
    bar: [...svg.querySelectorAll(".runs")].map(r => r.getBBox().height),
    veils: svg.querySelectorAll(".veil").length,
    tokens: svg.querySelectorAll(".token").length,
    text: example.querySelector(".text-on").textContent,
    rings: [...doc.querySelectorAll(".chosen")].map(r => r.ownerSVGElement.closest("figure").id),
    bad_texts: bad_texts(doc),
  });
  const slider = [state()];
  for (select.value = 0; select.selectedIndex >= 0; select.selectedIndex = next) {
    select.dispatchEvent(new win.Event("change"));
    for (range.value = 0; ; range.value = Number(range.value) + 1) {
      range.dispatchEvent(new win.Event("input"));
      slider.push(state());
      if (range.value === range.max) break;
    }
    var next = select.selectedIndex + 1 < select.options.length ? select.selectedIndex + 1 : -1;
  }
  const filter = [...doc.querySelectorAll("#filter button")].filter(b => !b.disabled).map(b => {
    b.click();
    const left = [...doc.querySelectorAll(".change")].filter(a => a.getClientRects().length);
    return [b.textContent, left.map(a => a.dataset.effect)];
  });
  const place = () => Number(svg.querySelector(".cursor").getAttribute("d").match(/M([0-9.]+)/)[1]);
  const readout = () => example.querySelector(".readout").textContent;
  svg.scrollIntoView();
  const frame = svg.getBoundingClientRect(), cursor = {};
  const at = {clientX: frame.left + frame.width / 2, clientY: frame.top + frame.height / 2};
  svg.dispatchEvent(new win.PointerEvent("pointermove", {...at, bubbles: true}));
  cursor.hover = [place(), readout()];
  svg.dispatchEvent(new win.KeyboardEvent("keydown", {key: "ArrowRight"}));
  cursor.key = [place(), readout()];
  const audio = example.querySelector("audio");
  const seeked = () => new Promise(done => {
    audio.addEventListener("seeked", () => setTimeout(done, 50), {once: true});
  });
  for (const [name, move] of [
    ["start", () => { audio.currentTime = 0.05; }],
    ["later", () => { audio.currentTime = 0.25; }],
    ["click", () => svg.dispatchEvent(new win.MouseEvent("click", {...at, bubbles: true}))],
  ]) {
    const done = Promise.race([seeked(), new Promise(late => setTimeout(late, 5000))]);
    move();
    await done;
    cursor[name] = [place(), audio.currentTime];
  }
  return {slider, filter, cursor};
}
async function visit(page, width) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 800px; border: 0`;
  const loaded = new Promise(done => frame.addEventListener("load", done));
  frame.src = page;
  document.body.append(frame);
  await loaded;
  const win = frame.contentWindow, doc = win.document;
  const found = {...await look(win, doc), dark: colors(win, doc)};
  paint(doc, false);
  found.light = colors(win, doc);
  found.used = await use(win, doc);
  frame.remove();
  return found;
}
(async () => {
  const result = {};
  for (const [page, width] of %(visits)s)
    try { result[page + " " + width] = await visit(page, width); }
    catch (error) { result[page + " " + width] = {failure: String(error.stack)}; }
  await fetch("/result", {method: "POST", body: JSON.stringify(result)});
})();
</script>
"""


def find_chromium():
    """Path of a Chromium or Chrome; None if there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def browse(pages, profile, visits):
    """Return what the wrapper measures: by (page, width), "requests", "console" (its lines).

    The browser prefers the dark colour scheme; "light" has the colours without it.

    Args:
        pages: HTML texts by path.
        profile: Empty folder for the browser.
        visits: (path, width in CSS pixels).
    """
    found, arrived, requests = {}, threading.Event(), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            body = {"/": WRAPPER.replace("%(visits)s", json.dumps(visits)), **pages}.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((body or "").encode())

        def do_POST(self):
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.update(zip(map(tuple, visits), sent.values(), strict=True))
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [
        *(find_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", f"--user-data-dir={profile}", "--window-size=1400,900"),
        *("--enable-logging=stderr", "--blink-settings=preferredColorScheme=0"),
        f"http://127.0.0.1:{server.server_address[1]}/",
    ]
    log = profile / "stderr.log"
    with log.open("w") as stderr:
        chromium = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            assert arrived.wait(TIMEOUT), f"Chromium sent nothing: {log.read_text()[-2000:]}"
        finally:
            chromium.terminate()
            chromium.wait(30)
            server.shutdown()
            server.server_close()
    found["requests"] = requests
    found["console"] = [line for line in log.read_text().splitlines() if "CONSOLE" in line]
    return found
