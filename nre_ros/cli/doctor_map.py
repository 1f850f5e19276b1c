"""What the doctor asks of the weights and a map, in a process of its own: ``-m nre_ros.cli.doctor_map [MAP]``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from nre_ros.cli.findings import Finding
from nre_ros.errors import NreError


def examine(map_path: str | None) -> list[Finding]:
    """The weights of the package, and the map: does it load, was it made by these weights, is all of it sound."""
    from nre_ros.features import load_network
    from nre_ros.localization.calibration import SHIPPED
    from nre_ros.mapping import load_map
    from nre_ros.mapping.inspection import inspect_map

    try:
        network = load_network(device="cpu")
    except NreError as error:
        return [Finding("fail", "weights", str(error), "install the package again; with git lfs: git lfs pull")]
    findings = [Finding("ok", "weights", f"{network.name} {network.weights_hash}")]
    remark = SHIPPED.remark(network.weights_hash)
    if remark:
        findings.append(Finding("warn", "acceptance", "it was calibrated for other weights", remark))
    if map_path is None:
        return [*findings, Finding("ok", "map", "not asked for: --map MAP checks one")]
    try:
        map_ = load_map(map_path, network)
    except NreError as error:
        return [*findings, Finding("fail", "map", str(error), "give another --map, or build it with nre_ros build-map")]
    report = inspect_map(map_path)
    about = f"{map_path}: {map_.keyframe_count} keyframes, {map_.landmark_count} landmarks, hash {map_.digest[:12]}"
    findings.append(Finding("ok", "map", about))
    findings += [Finding("warn", "map", remark, "nre_ros map check says more") for remark in report.remarks]
    findings += [Finding("fail", "map", fault, "build the map again, or copy it anew") for fault in report.faults]
    return findings


if __name__ == "__main__":
    print(json.dumps([asdict(finding) for finding in examine(sys.argv[1] if len(sys.argv) > 1 else None)]))
    sys.exit(0)
