"""Open a page in a real headless Chromium, in a frame of a wanted width, and look at it.

A small local server hands out the page inside a wrapper whose script measures it and sends
the findings back. The page is in a frame because headless windows are 500 px wide at least.
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
<iframe id="frame" style="width: %(width)dpx; height: 800px; border: 0" src="/page"></iframe>
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
document.getElementById("frame").addEventListener("load", async event => {
  const win = event.target.contentWindow, doc = win.document, root = doc.documentElement;
  const box = el => { const r = el.getBoundingClientRect(); return [r.width, r.height]; };
  const wide = [...doc.body.querySelectorAll("*")].filter(el =>
    !(el instanceof win.SVGElement && el.ownerSVGElement) && !scrolled(el.parentElement)
    && el.getBoundingClientRect().right > root.clientWidth + 1);
  const style = win.getComputedStyle(doc.body);
  const result = {
    inner_width: win.innerWidth,
    scroll_width: root.scrollWidth,
    wide: wide.map(el => el.tagName + "." + el.className + " " + el.textContent.slice(0, 40)),
    images: [...doc.querySelectorAll("img, svg, image")].map(box),
    broken: [...doc.images].filter(i => !i.complete || !i.naturalWidth).length,
    audio: await Promise.all([...doc.querySelectorAll("audio")].map(media)),
    resources: win.performance.getEntriesByType("resource").map(e => e.name.slice(0, 80)),
    background: style.backgroundColor, color: style.color,
    small: [...doc.querySelectorAll("a, summary, audio")].filter(
      el => el.getBoundingClientRect().height < 16).length,
  };
  await fetch("/result", {method: "POST", body: JSON.stringify(result)});
});
</script>
"""


def find_chromium():
    """Path of a Chromium or Chrome; None if there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def browse(page, profile, width=360, dark=False):
    """Return what the wrapper measures, plus "requests" and the lines of "console".

    Args:
        page: The HTML text.
        profile: Empty folder for the browser.
        width: Of the frame in CSS pixels.
        dark: Ask for the dark colour scheme.
    """
    found, arrived, requests = {}, threading.Event(), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            body = {"/": WRAPPER % {"width": width}, "/page": page}.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((body or "").encode())

        def do_POST(self):
            found.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
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
        *("--enable-logging=stderr", f"--blink-settings=preferredColorScheme={0 if dark else 1}"),
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
