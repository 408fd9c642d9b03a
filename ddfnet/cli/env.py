"""``ddfnet env``: versions, devices, and the kernel that serves each device."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import torch

from ddfnet import env_info
from ddfnet.cli._common import SUMMARIES
from ddfnet.ops import backends, library


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "env",
        help=SUMMARIES["env"],
        description="Prints versions, devices, the kernel that serves each device, and why. Send it with a bug report.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    found = collect()
    print(json.dumps(found, indent=2) if options.json else _text(found))
    return 0


def collect() -> dict[str, Any]:
    """Collect everything that ``ddfnet env`` prints. It never raises, because it serves when something is wrong."""
    return env_info.facts() | {
        "simd": torch.backends.cpu.get_cpu_capability(),
        "isas": library.isas(),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "libraries": {name: env_info.version(name) for name in env_info.LIBRARIES},
        "backend": _backend(),
        "devices": [_device(device, name) for device, name in _devices()],
    }


def _backend() -> dict[str, str | None]:
    value = os.environ.get("DDFNET_BACKEND") or None
    try:
        return {"DDFNET_BACKEND": value, "in_force": backends.chosen(), "error": None}
    except ValueError as error:
        return {"DDFNET_BACKEND": value, "in_force": None, "error": str(error)}


def _devices() -> list[tuple[torch.device, str]]:
    found = [(torch.device("cpu"), env_info.cpu_name())]
    for kind, module in (("cuda", torch.cuda), ("xpu", torch.xpu)):
        if module.is_available():
            found += [(torch.device(kind, i), module.get_device_name(i)) for i in range(module.device_count())]
    if torch.backends.mps.is_available():
        found.append((torch.device("mps"), "Apple GPU"))
    return found


def _device(device: torch.device, name: str) -> dict[str, Any]:
    kernel, reason = env_info.kernel(device)
    return {"device": str(device), "name": name, "kernel": kernel, "reason": reason, "kernels": _kernels(device)}


def _kernels(device: torch.device) -> dict[str, dict[str, Any]]:
    answers = {}
    for name in backends.NAMES:
        if name == "auto":
            continue
        try:
            can_run, reason = backends.can_run(name, device)
        except Exception as error:
            can_run, reason = False, f"{type(error).__name__}: {error}"
        answers[name] = {"can_run": can_run, "reason": reason}
    return answers


def _text(found: dict[str, Any]) -> str:
    libraries = "  ".join(f"{name} {version or '-'}" for name, version in found["libraries"].items())
    backend = found["backend"]
    choice = backend["error"] or f"{backend['in_force']} (DDFNET_BACKEND={backend['DDFNET_BACKEND'] or 'not set'})"
    accelerator = f", CUDA {found['cuda']}" * bool(found["cuda"]) + f", HIP {found['hip']}" * bool(found["hip"])
    lines = {
        "ddfnet": found["ddfnet"] + f" at {found['commit']}" * bool(found["commit"]),
        "python": f"{found['python']} on {found['system']}",
        "torch": f"{found['torch']}{accelerator}",
        "libraries": libraries,
        "cpu": f"{found['cpu']}, {found['cores']} cores, {found['simd']}",
        "threads": f"{found['threads']} used by torch",
        "backend": choice,
        "cpu isas": ", ".join(found["isas"]) or "-",
    }
    text = [f"{name:<10} {value}" for name, value in lines.items()]
    for device in found["devices"]:
        text += ["", f"{device['device']}: {device['name']}", f"  served by {device['kernel']}: {device['reason']}"]
        text += [
            f"  {'can' if answer['can_run'] else 'cannot'} {name}: {answer['reason']}"
            for name, answer in device["kernels"].items()
        ]
    return "\n".join(text)
