"""What the doctor asks of torch and the GPU, in a process of its own: a broken driver may crash or hang it."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path

from nre_ros.cli.findings import Finding

OLDEST = (2, 2)
DRIVER = Path("/proc/driver/nvidia/version")
JETSON = Path("/etc/nv_tegra_release")


def examine() -> list[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Finding("fail", "torch", f"cannot be imported: {error}", "pip install 'torch>=2.2' into this Python")]
    version = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        return [Finding("fail", "torch", f"{torch.__version__}, expected 2.2 or newer", "pip install -U torch")]
    cores = os.cpu_count()
    findings = [Finding("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads on {cores} cores")]
    return [*findings, _gpu(torch.version.cuda, driver_version())]


def driver_version() -> str:
    """Of NVIDIA's kernel driver; empty where there is none."""
    if DRIVER.exists():
        found = re.search(r"Kernel Module\D*([\d.]+)", DRIVER.read_text())
        return found[1] if found else "unknown"
    return "of Jetson Linux" if JETSON.exists() else ""


def _gpu(built_for: str | None, driver: str) -> Finding:
    import torch

    if built_for is None:
        if driver:
            advice = "install a CUDA build of torch (on a Jetson: NVIDIA's wheel for your JetPack)"
            return Finding("warn", "GPU", f"driver {driver}, but torch is built for the CPU alone", advice)
        return Finding("ok", "GPU", "none: the localizer runs on the CPU")
    if not torch.cuda.is_available():
        if not driver:
            return Finding("ok", "GPU", f"none: torch is built for CUDA {built_for}, the localizer runs on the CPU")
        advice = f"install a driver for CUDA {built_for}, or the torch build for this one; in Docker: --gpus all"
        return Finding("fail", "GPU", f"torch is built for CUDA {built_for}, driver {driver} does not serve it", advice)
    major, minor = torch.cuda.get_device_capability()
    name = f"{torch.cuda.get_device_name()}, capability {major}.{minor}, CUDA {built_for}, driver {driver or 'unknown'}"
    try:
        ones = torch.ones(16, 16, device="cuda")
        works = float((ones @ ones).sum()) == 16.0**3
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        kernels = ", ".join(torch.cuda.get_arch_list())
        advice = f"this torch has kernels for {kernels}; install a build for this GPU, or set device:=cpu"
        return Finding("fail", "GPU", f"{name}: {first}", advice)
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
    text = f"{name}, {free:.1f} of {total:.1f} GiB free"
    if not works:
        return Finding("fail", "GPU", f"{text}: it computes wrongly", "check its memory and its driver")
    return Finding("ok", "GPU", text)


if __name__ == "__main__":
    print(json.dumps([asdict(finding) for finding in examine()]))
    sys.exit(0)
