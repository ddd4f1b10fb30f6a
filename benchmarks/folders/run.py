"""Train every contestant on every folder and measure its images; what is measured already is skipped.

    python benchmarks/folders/prepare.py SOURCES FOLDERS
    git clone . OLD && git -C OLD checkout 885d9cf                # vaekit 0.1.0
    python benchmarks/folders/run.py FOLDERS OUT --minutes 5,20 --old OLD/src --peers PEERS/bin/python

OUT keeps runs and images; the metrics go to benchmarks/results/folders.json, from which
`tools/docs/quality.py` writes the page. One training runs at a time, on both cores. Contestants: vaekit (this
version's default), vaekit-0.1.0 (its default), and with the Python of an environment that has them, those of
peers.py.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "folders.json"
FOLDERS = ("emoji", "clipart", "photos", "cifar10", "fashion-mnist")
PEERS = ("pythae", "denoising-diffusion-pytorch", "lightweight-gan")


def command(contestant: str, folder: Path, out: Path, marks: str, options: argparse.Namespace) -> list[str]:
    if contestant in PEERS:
        return [options.peers, str(HERE / "peers.py"), contestant, str(folder), str(out), marks]
    script = [sys.executable, str(HERE / "ours.py"), str(folder), str(out), marks]
    return script if contestant == "vaekit-0.1.0" else [*script, "--each", "--time", "minutes"]


def add(results: dict[str, Any], name: str, contestant: str, minutes: str, metrics: dict[str, Any]) -> None:
    results.setdefault(name, {}).setdefault(contestant, {})[minutes] = metrics
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", default="5")
    parser.add_argument("--names", nargs="+", default=FOLDERS)
    parser.add_argument("--contestants", nargs="+", default=("vaekit", "vaekit-0.1.0", *PEERS))
    parser.add_argument("--old", help="the folder src of vaekit 0.1.0")
    parser.add_argument("--peers", help="the Python that has the peers installed")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.names:
        for contestant in options.contestants:
            measured = results.get(name, {}).get(contestant, {})
            marks = [minutes for minutes in options.minutes.split(",") if minutes not in measured]
            if not marks:
                continue
            folder, out = options.folders / name, options.out / name / contestant
            environment = dict(os.environ)
            if contestant == "vaekit-0.1.0":
                environment |= {"PYTHONPATH": options.old, "XDG_CACHE_HOME": str(options.out / "cache-0.1.0")}
            print(f"{name}: {contestant}, {', '.join(marks)} minutes", flush=True)
            out.mkdir(parents=True, exist_ok=True)
            with (out / "log.txt").open("a") as log:
                subprocess.run(
                    command(contestant, folder, out, ",".join(marks), options),
                    env=environment,
                    stdout=log,
                    stderr=log,
                    check=True,
                )
            for minutes in marks:
                place = out / f"{float(minutes):g}"
                measure = [sys.executable, str(HERE / "measure.py"), str(folder), str(place)]
                subprocess.run(measure, check=True)
                metrics = json.loads((place / "metrics.json").read_text())
                add(results, name, contestant, minutes, metrics)


if __name__ == "__main__":
    main()
