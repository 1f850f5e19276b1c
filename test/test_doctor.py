"""nre_ros doctor: each check sees what it is for, says what to do, and nothing it starts can hang it."""

from __future__ import annotations

import json
import os
import textwrap

import pytest

from nre_ros.cli import doctor_machine as machine
from nre_ros.cli.children import Child
from nre_ros.cli.doctor_map import examine as examine_map
from nre_ros.cli.findings import LEVELS, Finding, asked_of_child, worst
from nre_ros.cli.main import main
from nre_ros.share import share_folder

PROFILE = str(share_folder() / "config" / "fastdds_large_images.xml")


def test_worst_of_findings():
    findings = [Finding(level, "a", "b") for level in ("ok", "warn")]
    assert (worst([]), worst(findings), worst([*findings, Finding("fail", "a", "b")])) == LEVELS


@pytest.mark.parametrize(("version", "level"), [((3, 9, 1), "fail"), ((3, 12, 3), "ok"), ((3, 14, 0), "fail")])
def test_python_version(version, level):
    assert machine.python_version(version).level == level


@pytest.mark.parametrize(
    ("value", "level"), [("", "ok"), ("0", "ok"), ("101", "ok"), ("102", "warn"), ("233", "fail"), ("x", "fail")]
)
def test_domain(value, level):
    found = machine.domain({"ROS_DOMAIN_ID": value})
    assert found.level == level
    assert bool(found.advice) == (level != "ok")


def test_profile_is_read_as_fast_dds_would(tmp_path):
    variable = "FASTRTPS_DEFAULT_PROFILES_FILE"
    small, broken = tmp_path / "small.xml", tmp_path / "broken.xml"
    with open(PROFILE) as file:
        small.write_text(file.read().replace("67108864", "524288"))
    broken.write_text("<dds>")
    levels = {path: machine.fast_dds_profile({variable: str(path)}).level for path in (PROFILE, small, broken)}
    assert levels == {PROFILE: "ok", small: "warn", broken: "fail"}
    assert machine.fast_dds_profile({variable: "/no/such.xml"}).level == "fail"
    nothing = machine.fast_dds_profile({})
    assert (nothing.level, PROFILE in nothing.advice) == ("warn", True)
    newer = {"FASTDDS_DEFAULT_PROFILES_FILE": str(small), variable: PROFILE}
    assert machine.fast_dds_profile(newer).level == "warn"  # the newer name goes first
    assert machine.fast_dds_profile({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}).level == "ok"


def test_profile_matters_to_fast_dds_alone():
    subjects = {f.subject for f in machine.middleware({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"})}
    assert "Fast DDS" not in subjects
    assert "Fast DDS" in {f.subject for f in machine.middleware({})}


def test_dockers_small_shared_memory_is_told(monkeypatch):
    def usage(total_mb, free_mb):
        return lambda path: machine.shutil._ntuple_diskusage(total_mb * 2**20, 0, free_mb * 2**20)

    for total, free, level in ((64, 60, "fail"), (128, 100, "warn"), (8000, 7000, "ok")):
        monkeypatch.setattr(machine.shutil, "disk_usage", usage(total, free))
        found = machine.shared_memory()
        assert found.level == level
        assert ("--shm-size" in found.advice) == (level != "ok")
    monkeypatch.undo()
    assert machine.shared_memory("/no/such/folder").level == "fail"


def test_receive_buffer(tmp_path):
    file = tmp_path / "rmem_max"
    for size, level in ((212992, "warn"), (16777216, "ok")):
        file.write_text(f"{size}\n")
        assert machine.receive_buffer(str(file)).level == level
    assert machine.receive_buffer(str(tmp_path / "none")).level == "ok"


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    assert str(tmp_path) in machine.disk(str(tmp_path / "maps" / "office")).text


def test_map_and_weights(corner_path, tmp_path):
    assert {f.level for f in examine_map(str(corner_path))} <= {"ok", "warn"}
    missing = examine_map(str(tmp_path))[-1]
    assert (missing.level, missing.subject) == ("fail", "map")
    (tmp_path / "map.safetensors").write_bytes(b"rubbish" * 100)
    assert examine_map(str(tmp_path))[-1].level == "fail"


CHILDREN = {
    'print(\'chatter\'); print(\'[{"level": "ok", "subject": "s", "text": "t"}]\')': ("ok", "t"),
    "import time; time.sleep(60)": ("fail", "did not end within 5 s"),
    "import os; os.abort()": ("fail", "killed by signal 6"),
    "raise ImportError('numpy.core.multiarray failed to import')": ("fail", "numpy.core.multiarray"),
    "print('no findings')": ("fail", "ended with 0"),
}
"""What a check may do, and what is told of it."""


@pytest.mark.parametrize(("source", "told"), CHILDREN.items())
def test_a_check_that_crashes_or_hangs_is_a_finding(source, told, tmp_path, monkeypatch):
    (tmp_path / "doctors_child.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = asked_of_child("s", "doctors_child", [], timeout_s=5.0)
    assert found.level == told[0]
    assert told[1] in found.text


CV_BRIDGES = {
    "import numpy.core.no_such_multiarray": ("warn", "does not import|lacks"),
    "raise AttributeError('_ARRAY_API not found')": ("warn", "_ARRAY_API"),
    "class CvBridge:\n    def imgmsg_to_cv2(self, *_): raise SystemError('built for NumPy 1')": ("warn", "NumPy 1"),
    "class CvBridge:\n    def imgmsg_to_cv2(self, *_): return 0": ("warn", "colours"),
}


@pytest.mark.parametrize(("source", "told"), CV_BRIDGES.items())
def test_a_cv_bridge_that_does_not_work_is_told(source, told, tmp_path, monkeypatch):
    pytest.importorskip("sensor_msgs", reason="ROS 2 is not installed")
    (tmp_path / "cv_bridge.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = asked_of_child("cv_bridge", "nre_ros.ros.doctor_cv_bridge", [], timeout_s=60.0)
    assert (found.level, found.subject) == (told[0], "cv_bridge")
    assert any(text in found.text for text in told[1].split("|"))
    assert "our own decoder" in found.text


def test_exit_code_tells_of_failures_and_json_holds_what_was_printed(tmp_path, capsys, corner_path, monkeypatch):
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", PROFILE)
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    figures = tmp_path / "doctor.json"
    assert main(["doctor", "--no-ros", "--map", str(corner_path), "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(figures.read_text())
    assert {f["subject"] for f in found["findings"]} >= {"python", "torch", "GPU", "weights", "map", "cv_bridge"}
    for finding in found["findings"]:
        assert finding["level"] in LEVELS
        assert finding["text"] in printed
        assert finding["level"] == "ok" or finding["advice"]
    monkeypatch.setenv("ROS_DOMAIN_ID", "frog")
    assert main(["doctor", "--no-ros"]) == 1
    assert "'frog' is none" in capsys.readouterr().out


ROBOT = textwrap.dedent("""
    import sys, time
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CameraInfo, Image
    from tf2_msgs.msg import TFMessage
    from geometry_msgs.msg import TransformStamped
    rclpy.init()
    node = rclpy.create_node("robot")
    image = node.create_publisher(Image, "/front/image_raw", 1)
    info = node.create_publisher(CameraInfo, "/front/camera_info", 1)
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    tf = node.create_publisher(TFMessage, "/tf", best_effort)
    def send():
        message = Image(height=2, width=2, step=6, encoding="rgb8", data=bytes(12))
        message.header.frame_id = "cam"
        image.publish(message)
        info.publish(CameraInfo(width=2, height=2))
    node.create_timer(0.1, send)
    rclpy.spin(node)
""")


def test_running_system_is_examined(tmp_path, monkeypatch):
    """A camera that is not calibrated, does not stamp its images, and odometry that is sent best effort."""
    pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
    script = tmp_path / "doctors_robot.py"
    script.write_text(ROBOT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with Child("robot", "doctors_robot", [], tmp_path / "log.txt", environment):
        listen = ["--listen", "4"]
        found = asked_of_child("ROS", "nre_ros.ros.doctor_graph", listen, 90.0)
        lost = {(f.subject, f.level): f for f in found}
        assert "image:=/front/image_raw" in lost["images", "fail"].advice, found
        assert "camera_info:=/front/camera_info" in lost["camera_info", "fail"].advice
        assert "reliable" in lost["/tf", "fail"].advice
        topics = ["--image", "/front/image_raw", "--camera-info", "/front/camera_info"]
        found = asked_of_child("ROS", "nre_ros.ros.doctor_graph", [*listen, *topics], 90.0)
        told = {(f.subject, f.level): f.text for f in found}
        assert "not calibrated" in told["calibration", "fail"], found
        assert "stamped 0" in told["clock", "fail"]
        assert "2x2, rgb8" in told["images", "ok"]
        assert "/robot, reliable" in told["/front/image_raw", "ok"]
