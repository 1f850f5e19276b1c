"""Transitions, parameters and the service of the localizer node."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter
from ros_harness import ros
from ros_rig import DARK, EXTRINSICS, FAILURE, QUERY, SUCCESS, Rig, info_message
from std_srvs.srv import Trigger

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
        assert rig.node._map is None
        assert rig.node._worker is None
        assert r.do(rig.node.trigger_configure) == SUCCESS
        assert r.do(rig.node.trigger_activate) == SUCCESS
        r.wait(lambda: rig.image.get_subscription_count() and rig.info.get_subscription_count(), "subscriptions")
        rig.info.publish(info_message())
        r.wait(lambda: rig.node._camera._calibration, "camera_info")
        rig.send()
        rig.wait_for_pose(count + 1)
    assert r.do(rig.node.trigger_shutdown) == SUCCESS


def test_a_wrong_transition_does_not_end_the_node(map_path):
    """rclpy raises in the service's callback; the loop of run_node survives that."""
    from lifecycle_msgs.srv import ChangeState, GetState

    with ros() as r:
        rig = Rig(r, map_path)
        client = r.node.create_client(ChangeState, "/nre_localizer/change_state")
        r.wait(client.service_is_ready, "service")
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
        client.call_async(request)
        time.sleep(0.3)
        state = r.call(GetState, "/nre_localizer/get_state", GetState.Request())
        assert state.current_state.label == "unconfigured"
        assert r.do(rig.node.trigger_configure) == SUCCESS
        r.failures.clear()


def test_a_live_parameter_of_the_localizer_takes_effect_at_the_next_image(r, map_path):
    rig = Rig(r, map_path, tf_mode="none").start()
    rig.send()
    rig.wait_for_pose()
    r.do(lambda: rig.node.set_parameters([Parameter("accept.rotation_deg", value=0.001)]))
    rig.send()
    r.told("rotation is uncertain")
    assert len(rig.poses) == 1
    r.do(lambda: rig.node.set_parameters([Parameter("accept.rotation_deg", value=0.5)]))
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
