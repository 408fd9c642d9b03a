"""Training throughput on this machine in images per second; writes throughput.json and its table in docs/scale.md.

    python reproduce/scale/throughput.py     # some minutes, on a machine that does nothing else

Each figure is for `ddfnet train classification` with the paper's recipe, except for the batch size and the precision,
on a folder of JPEGs that this script makes: the difference in images of two runs of different lengths over their
difference in time. It includes the whole step: reading, augmentation, both passes, the optimizer, the logs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from communication import NETWORKS, PAGE, page  # noqa: E402

from ddfnet import env_info  # noqa: E402

BATCH, STEPS = 16, (3, 11)
PROCESSES = (1, 2)
CLASSES, IMAGES, SIDE = 2, 16, 256


def write_images(folder: Path) -> None:
    """Write JPEGs of noise, smooth enough for a usual file size."""
    generator = np.random.default_rng(0)
    for part in ("train", "val"):
        for label in range(CLASSES):
            (folder / part / str(label)).mkdir(parents=True)
            for number in range(IMAGES):
                noise = generator.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
                image = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                image.save(folder / part / str(label) / f"{number}.jpg", quality=90)


def seconds(network: str, processes: int, steps: int, folder: Path) -> float:
    """Return the time of a training of so many steps, from its model card."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command += ["ddfnet", "train", "classification", "--config=imagenet-paper"]
    command += [f"--model.network={network}", f"--model.num_classes={CLASSES}", f"--data.path={folder}"]
    command += [f"--data.batch_size={BATCH}", "--data.workers=0", "--trainer.accelerator=cpu"]
    command += ["--trainer.precision=32-true", "--trainer.max_epochs=-1", f"--trainer.max_steps={steps}"]
    command += ["--trainer.limit_val_batches=1", f"--threads={threads}"]
    with tempfile.TemporaryDirectory() as output:
        command += [f"--output={output}/run"]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)}
        )
        card = Path(output) / "run" / "model.json"
        if not card.exists():
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return float(json.loads(card.read_text())["seconds"])


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Measure the images per second of each network, by the number of processes."""
    found: dict[str, dict[str, float]] = {name: {} for name in NETWORKS}
    for processes in PROCESSES:
        for name in NETWORKS:
            short, long = (seconds(name, processes, steps, folder) for steps in STEPS)
            found[name][str(processes)] = BATCH * (STEPS[1] - STEPS[0]) / (long - short)
            print(f"{name}, {processes} processes: {found[name][str(processes)]:.2f} images per second", flush=True)
    return found


def table(results: dict[str, Any]) -> str:
    """Format the results in Markdown."""
    lines = ["| images per second | " + " | ".join(f"{p} process{'es' * (p > 1)}" for p in PROCESSES) + " |"]
    lines.append("|---" * (1 + len(PROCESSES)) + "|")
    networks = results["networks"]
    for name, row in networks.items():
        lines.append(f"| `{name}` | " + " | ".join(f"{row[str(p)]:.2f}" for p in PROCESSES) + " |")
    for conv, ddf in (NETWORKS[:2], NETWORKS[2:]):
        shares = [networks[ddf][str(p)] / networks[conv][str(p)] for p in PROCESSES]
        lines.append(f"| `{ddf}` / `{conv}` | " + " | ".join(f"{share:.2f}" for share in shares) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    facts = {"command": "python reproduce/scale/throughput.py", "batch": BATCH, "machine": env_info.facts()}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        results = facts | {"networks": measure(Path(folder))}
    (HERE / "throughput.json").write_text(json.dumps(results, indent=2) + "\n")
    PAGE.write_text(page(PAGE.read_text(), table(results), "throughput"))


if __name__ == "__main__":
    main()
