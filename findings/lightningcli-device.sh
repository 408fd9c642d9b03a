#!/usr/bin/env bash
# LightningCLI saves a configuration that it cannot read again where a callback has a torch.device as an argument.
#
# Expected: the config.yaml of a run starts the same run again.
# Seen with lightning 2.6.6 and jsonargparse 4.53.0: StochasticWeightAveraging has the default device=torch.device("cpu"),
# which is written as the text "Unable to serialize instance cpu"; a run from that file stops at "Invalid device string".
# Way around: jsonargparse.typing.register_type(torch.device, str) before the parser is made.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy lightning==2.6.6 "jsonargparse[signatures]==4.53.0"
cat >"$folder/check.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from jsonargparse.typing import register_type
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.cli import LightningCLI

print("lightning", version("lightning"), "jsonargparse", version("jsonargparse"))
callback = (
    '[{"class_path": "lightning.pytorch.callbacks.StochasticWeightAveraging", "init_args": {"swa_lrs": 0.01}}]'
)


def build(*arguments):
    return LightningCLI(LightningModule, run=False, save_config_callback=None, args=list(arguments))


def saved():
    cli = build(f"--trainer.callbacks={callback}", "--trainer.logger=false")
    text = cli.parser.dump(cli.config)
    with open(sys.argv[1], "w") as file:
        file.write(text)
    return next(line.strip() for line in text.splitlines() if line.strip().startswith("device:"))


line = saved()
print("saved:", line)
assert line == "device: Unable to serialize instance cpu", "the behaviour has changed"
cli = build("--config", sys.argv[1])
[average] = [each for each in cli.trainer.callbacks if isinstance(each, StochasticWeightAveraging)]
try:
    torch.device(average._device)  # as at the start of training
except RuntimeError as error:
    print("read again, and used:", str(error).splitlines()[0])
else:
    raise SystemExit("the behaviour has changed: the file has a device")
register_type(torch.device, str)
print("with register_type, saved:", saved())
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder/config.yaml" 2>/dev/null
