"""The speed of `vaekit explore`, measured in Chromium on this machine.

    python benchmarks/browser.py [--images 10000] [--size 64]

Trains a default model on made-up colour images for a few steps, since speed does not depend on what it has
learned, opens the page, and writes benchmarks/results/explorer.json: seconds until the map is drawn and until
the first new image is shown, milliseconds of a step of a slider from the event to the picture (median and
95 % quantile), frames per second of a map of 1,000,000 made-up points (while it moves, when as many
are drawn as fit into a frame, and with all), and the memory that the server adds to the loaded model.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "explorer.json"
GRAPHICS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
STEPS = 120
SLIDER = """async (steps) => {
  const input = document.querySelector(".sliders input");
  const canvas = document.querySelector(".paint canvas.picture");
  const context = canvas.getContext("2d");
  const put = CanvasRenderingContext2D.prototype.putImageData;
  const times = [];
  for (let i = 0; i < steps; i++) {
    const shown = new Promise((resolve) => {
      CanvasRenderingContext2D.prototype.putImageData = function (...given) {
        put.apply(this, given);
        if (this === context) resolve();
      };
    });
    const start = performance.now();
    input.value = -3 + (6 * i) / steps;
    input.dispatchEvent(new Event("input"));
    await shown;
    times.push(performance.now() - start);
  }
  CanvasRenderingContext2D.prototype.putImageData = put;
  return times;
}"""
POINTS = """async (count) => {
  const { Points } = await import("/static/points.js");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [1000, 700];
  document.body.append(canvas);
  const points = new Points(canvas);
  points.setPositions(Float32Array.from({ length: 2 * count }, () => Math.random()));
  points.setColors(Float32Array.from({ length: count }, (_, i) => i % 256));
  points.setPalette(new Uint8Array(4 * 256).fill(180));
  const result = {};
  for (const [name, moving] of [["moving", true], ["all", false]]) {
    const start = performance.now();
    let frames = 0;
    while (performance.now() - start < 3000) {
      points.draw({ x: 0.5 + 0.0001 * frames, y: 0.5, scale: 600 }, 3, moving);
      points.gl.readPixels(0, 0, 1, 1, points.gl.RGBA, points.gl.UNSIGNED_BYTE, new Uint8Array(4));
      await new Promise(requestAnimationFrame);
      frames += 1;
    }
    result[name] = frames / ((performance.now() - start) / 1000);
  }
  canvas.remove();
  return result;
}"""


def make_run(folder: Path, images: int, size: int) -> Path:
    """A run of the default model on noise that is smooth."""
    import vaekit

    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (images, 8, 8, 3), np.uint8)
    data = folder / "images.npy"
    np.save(data, coarse.repeat(size // 8, 1).repeat(size // 8, 2))
    settings: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 20, "flow_matching": {"steps": 100}}
    model = vaekit.train(data, out=folder / "run", size=size, report=False, quiet=True, **settings)
    return model.run.folder


def memory(pid: int) -> float:
    """Anonymous memory of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+)", status)[0]) / 1024


def measure(run: Path) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "vaekit", "explore", str(run), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = re.findall(r"http://\S+", server.stdout.readline())[0]
    before = memory(server.pid)
    try:
        with sync_playwright() as driver:
            executable = shutil.which("chromium")
            browser = driver.chromium.launch(executable_path=executable, args=list(GRAPHICS))
            page = browser.new_page(viewport={"width": 1200, "height": 800})
            page.goto(address)
            page.wait_for_selector(".legend *", timeout=1_800_000)  # once, all images are encoded
            base = address.split("?")[0]
            results: dict[str, float] = {}
            for name, selector in (("map", ".legend *"), ("wall", ".wall canvas")):
                page.goto("about:blank")
                page.goto(f"{base}#tab={name}")
                page.wait_for_selector(selector)
                results[f"seconds to the {name}"] = page.evaluate("performance.now() / 1000")
            page.goto("about:blank")
            page.goto(f"{base}#tab=sliders")
            page.wait_for_selector(".sliders input")
            page.evaluate(SLIDER, 10)
            times = page.evaluate(SLIDER, STEPS)
            results |= {f"slider ms, {q} %": float(np.quantile(times, q / 100)) for q in (50, 95)}
            frames = page.evaluate(POINTS, 1_000_000)
            results |= {f"frames/s of 1,000,000 points, {name}": value for name, value in frames.items()}
            browser.close()
        results["MB of the server above the loaded model"] = memory(server.pid) - before
    finally:
        server.terminate()
        server.wait()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(make_run(Path(folder), options.images, options.size))
    everything = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    everything[f"{options.images:,} images of {options.size}x{options.size}"] = results
    RESULTS.write_text(json.dumps(everything, indent=1) + "\n")
    for name, value in results.items():
        print(f"{name:45} {value:10.2f}")


if __name__ == "__main__":
    main()
