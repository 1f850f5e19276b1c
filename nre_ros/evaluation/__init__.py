"""How good the answers are."""

from nre_ros.evaluation.metrics import Answer, Summary, summarise
from nre_ros.evaluation.offline import localize_frames

__all__ = ["Answer", "Summary", "localize_frames", "summarise"]
