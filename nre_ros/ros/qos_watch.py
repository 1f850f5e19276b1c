"""Publishers and subscribers that will never hear each other, by topic."""

from __future__ import annotations

from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import qos_policy_name_from_kind


class QosWatch:
    """Logs each incompatible-QoS event in a sentence and remembers it for /diagnostics."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seen: dict[str, str] = {}

    @property
    def summary(self) -> str:
        """``/topic (POLICY), ...``; empty when all fit."""
        return ", ".join(f"{topic} ({policy})" for topic, policy in sorted(self._seen.items()))

    def subscription(self, topic: str) -> SubscriptionEventCallbacks:
        """To be given to ``create_subscription`` of the topic."""
        sentence = (
            "{topic}: a publisher offers a QoS that this node cannot receive ({policy}); nothing will come from it"
        )
        return SubscriptionEventCallbacks(incompatible_qos=lambda event: self._note(topic, sentence, event))

    def publisher(self, topic: str) -> PublisherEventCallbacks:
        """To be given to ``create_publisher`` of the topic."""
        sentence = "{topic}: a subscriber asks for a QoS that this node does not offer ({policy}); it will hear nothing"
        return PublisherEventCallbacks(incompatible_qos=lambda event: self._note(topic, sentence, event))

    def _note(self, topic: str, sentence: str, event: Any) -> None:
        name = self._node.resolve_topic_name(topic)
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self._seen[name] = policy
        self._node.get_logger().warning(sentence.format(topic=name, policy=policy))
