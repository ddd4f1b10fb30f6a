"""How fast a page of `vaekit export RUN --to web` is: python benchmarks/web_page.py FOLDER

In Chromium, one image at a time, on one thread: from opening the page to its first image, for decoding an
image, and for drawing a latent from the prior.
"""

import functools
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MEASURE = """async () => {
  const { model, decode, draw } = vaekit;
  const median = async (count, call) => {
    const times = [];
    for (let i = 0; i < count; i++) {
      const start = performance.now();
      await call();
      times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b)[Math.floor(count / 2)];
  };
  const z = Float32Array.from({ length: model.size }, () => Math.random() - 0.5);
  await decode(z);
  return {
    "image": `${model.shape[2]}x${model.shape[1]}x${model.shape[0]}`,
    "threads": self.crossOriginIsolated ? "several" : 1,
    "ms to decode an image, median of 200": await median(200, () => decode(z)),
    "ms to draw a latent, median of 20": await median(20, () => draw(1)),
  };
}"""


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


def measure(folder: str) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}")
        page.wait_for_selector(".tile", timeout=120_000)
        first = page.evaluate("performance.now()")
        page.wait_for_selector("#status", state="hidden", timeout=120_000)
        results: dict[str, Any] = {"ms to the first image": first, **page.evaluate(MEASURE)}
        browser.close()
    server.shutdown()
    return results


if __name__ == "__main__":
    for name, value in measure(sys.argv[1]).items():
        print(f"{name:40} {value if isinstance(value, (str, int)) else round(value, 1)}")
