"""Training of the descriptor network with the Neural Reprojection Error as loss."""

from nre_ros.training.config import TrainingConfig, config_text, read_config
from nre_ros.training.data import TrainingData, gather
from nre_ros.training.mixture import Mixture
from nre_ros.training.pose_validation import PoseScore, validate_poses
from nre_ros.training.processes import Processes, join_processes
from nre_ros.training.site import Verdict, gather_site, judge
from nre_ros.training.start import start_network
from nre_ros.training.trainer import Trainer
from nre_ros.training.validation import Score, validate

__all__ = [
    "Mixture",
    "PoseScore",
    "Processes",
    "Score",
    "Trainer",
    "TrainingConfig",
    "TrainingData",
    "Verdict",
    "config_text",
    "gather",
    "gather_site",
    "join_processes",
    "judge",
    "read_config",
    "start_network",
    "validate",
    "validate_poses",
]
