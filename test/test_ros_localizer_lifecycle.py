"""Transitions, parameters and the service of the localizer node."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
import torch
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.parameter import Parameter
from ros_rig import DARK, EXTRINSICS, FAILURE, QUERY, SUCCESS, Rig, image_message, info_message
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from nre_ros.localization.calibration import Calibration, write_calibration
from nre_ros.recordings.frame import Frame

pytest_plugins = ["ros_fixtures"]


@pytest.mark.parametrize("path", ["", "/nowhere/map"])
def test_without_a_map_configuring_fails_with_the_reason_and_can_be_retried(r, map_path, path):
    rig = Rig(r, path)
    assert r.do(rig.node.trigger_configure) == FAILURE
    told = r.told("configure failed")
    assert told.level == b"\x02"
    assert ("map_path" in told.message) if not path else (path in told.message)
    r.do(lambda: rig.node.set_parameters([Parameter("map_path", value=map_path)]))
    rig.start()
    rig.send()
    r.told("localized") if rig.node.config.tf_mode == "none" else rig.wait_for_pose()


def test_a_damaged_map_and_a_bad_parameter_are_refused_by_name(r, map_path, tmp_path):
    (tmp_path / "map.safetensors").write_bytes(b"not a map")
    rig = Rig(r, str(tmp_path), camera_extrinsics=[1.0, 2.0])
    assert r.do(rig.node.trigger_configure) == FAILURE
    r.told(str(tmp_path))
    r.do(lambda: rig.node.set_parameters([Parameter("map_path", value=map_path)]))
    assert r.do(rig.node.trigger_configure) == FAILURE
    r.told("camera_extrinsics has 2 numbers")
    r.do(lambda: rig.node.set_parameters([Parameter("camera_extrinsics", value=EXTRINSICS)]))
    assert r.do(rig.node.trigger_configure) == SUCCESS


def test_autostart_reaches_active_by_itself(r, map_path):
    rig = Rig(r, map_path, autostart=True)
    r.wait(lambda: rig.node.state == "active", "active state")


def test_every_transition_can_be_repeated_under_load(r, map_path):
    rig = Rig(r, map_path, tf_mode="none").start()
    for _ in range(3):
        for frame in (QUERY, DARK) * 3:
            rig.send(frame)
        assert r.do(rig.node.trigger_deactivate) == SUCCESS
        count = len(rig.poses)
        rig.send()
        time.sleep(0.3)
        assert len(rig.poses) - count <= 1, "at most the one that was on its way"
        count = len(rig.poses)
        assert r.do(rig.node.trigger_cleanup) == SUCCESS
        assert rig.node._place is None
        assert rig.node._worker is None
        assert r.do(rig.node.trigger_configure) == SUCCESS
        assert r.do(rig.node.trigger_activate) == SUCCESS
        r.wait(lambda: rig.image.get_subscription_count() and rig.info.get_subscription_count(), "subscriptions")
        rig.info.publish(info_message())
        r.wait(lambda: rig.node._camera._calibration, "camera_info")
        rig.send()
        rig.wait_for_pose(count + 1)
    assert r.do(rig.node.trigger_shutdown) == SUCCESS


CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
)
SHUTDOWNS = {
    "unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    "inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
    "active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
}
LEADS_TO = {
    ("unconfigured", CONFIGURE): "inactive",
    ("inactive", ACTIVATE): "active",
    ("inactive", CLEANUP): "unconfigured",
    ("active", DEACTIVATE): "inactive",
    **dict.fromkeys(SHUTDOWNS.items(), "finalized"),
}
WAY_TO = {
    "unconfigured": (),
    "inactive": (CONFIGURE,),
    "active": (CONFIGURE, ACTIVATE),
    "finalized": (SHUTDOWNS["unconfigured"],),
}


@pytest.mark.parametrize("state", WAY_TO)
def test_every_transition_from_every_state_is_answered_under_load(r, map_path, state):
    """As a lifecycle manager asks for them; the impossible ones are refused and change nothing."""
    rig = Rig(r, map_path, tf_mode="none")
    image, info = r.node.create_publisher(Image, "image", 10), r.node.create_publisher(CameraInfo, "camera_info", 10)

    def load() -> None:
        info.publish(info_message())
        image.publish(image_message(QUERY))

    r.do(lambda: r.node.create_timer(0.03, load))

    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return r.call(ChangeState, "/nre_localizer/change_state", request).success

    def label() -> str:
        return r.call(GetState, "/nre_localizer/get_state", GetState.Request()).current_state.label

    for step in WAY_TO[state]:
        assert change(step)
    for transition in (CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE, *SHUTDOWNS.values()):
        if (state, transition) not in LEADS_TO:
            assert not change(transition)
            assert (label(), rig.node.state) == (state, state)
    for transition in (CONFIGURE, ACTIVATE, DEACTIVATE, CLEANUP, SHUTDOWNS.get(state)):
        if state == label() and (state, transition) in LEADS_TO:
            assert change(transition)
            assert label() == rig.node.state == LEADS_TO[state, transition]


@pytest.mark.parametrize("step", ["deactivate", "release"])
def test_a_transition_that_cannot_be_undone_ends_where_configuring_can_be_tried_again(r, map_path, monkeypatch, step):
    rig = Rig(r, map_path, tf_mode="none").start()
    with monkeypatch.context() as patch:
        failing = iter([RuntimeError("out of luck")])

        def fail() -> None:
            for error in failing:
                raise error

        patch.setattr(rig.node, step, fail)
        if step == "release":
            assert r.do(rig.node.trigger_deactivate) == SUCCESS
            r.do(rig.node.trigger_cleanup)
        else:
            r.do(rig.node.trigger_deactivate)
    r.told("out of luck")
    state = r.call(GetState, "/nre_localizer/get_state", GetState.Request())
    assert state.current_state.label == rig.node.state == "unconfigured"
    assert r.do(rig.node.trigger_configure) == SUCCESS


def test_wrong_weights_and_an_absent_gpu_are_named_and_configuring_can_be_retried(r, map_path, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    rig = Rig(r, map_path, weights=str(tmp_path / "bad.safetensors"))
    assert r.do(rig.node.trigger_configure) == FAILURE
    r.told("bad.safetensors")
    r.do(lambda: rig.node.set_parameters([Parameter("weights", value="")]))
    if not torch.cuda.is_available():
        r.do(lambda: rig.node.set_parameters([Parameter("device", value="cuda")]))
        assert r.do(rig.node.trigger_configure) == FAILURE
        r.told("cuda")
        r.do(lambda: rig.node.set_parameters([Parameter("device", value="cpu")]))
    assert r.do(rig.node.trigger_configure) == SUCCESS


def test_a_live_parameter_of_the_localizer_takes_effect_at_the_next_image(r, map_path, tmp_path):
    write_calibration(Calibration("another", 200, 1.0, 1e3), tmp_path / "steep.json")
    given = {"accept.calibration": str(tmp_path / "steep.json"), "accept.false_accept_rate": 0.1}
    rig = Rig(r, map_path, tf_mode="none", **given).start()
    rig.send()
    rig.wait_for_pose()
    r.do(lambda: rig.node.set_parameters([Parameter("accept.false_accept_rate", value=1e-3)]))
    rig.send()
    r.told("parts of the image are explained")
    assert len(rig.poses) == 1
    r.do(lambda: rig.node.set_parameters([Parameter("accept.false_accept_rate", value=0.1)]))
    rig.send()
    rig.wait_for_pose(2)


def test_relocalize_answers_after_the_next_attempt(r, map_path):
    rig = Rig(r, map_path, tf_mode="none", relocalize_timeout=20.0).start()

    def ask(frame: Frame):
        client = r.node.create_client(Trigger, "/nre_localizer/relocalize")
        r.wait(client.service_is_ready, "service")
        future = client.call_async(Trigger.Request())
        time.sleep(0.2)
        assert not future.done(), "answered before any attempt"
        rig.send(frame)
        return r.wait(lambda: future.done() and future.result(), "answer")

    good = ask(QUERY)
    assert good.success
    assert "position" in good.message
    assert "score" in good.message
    bad = ask(DARK)
    assert not bad.success
    assert bad.message
    assert "position" not in bad.message


def test_relocalize_says_why_it_cannot(r, map_path):
    rig = Rig(r, map_path, relocalize_timeout=0.3, stale_timeout=0.1)
    answer = r.call(Trigger, "/nre_localizer/relocalize", Trigger.Request())
    assert (answer.success, answer.message) == (False, "the node is unconfigured: activate it first")
    rig.start()
    answer = r.call(Trigger, "/nre_localizer/relocalize", Trigger.Request())
    assert not answer.success
    assert answer.message.startswith("no attempt within 0.3 s: no images")
