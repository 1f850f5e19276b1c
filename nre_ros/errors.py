"""Errors a user can cause and mend. Each message says what was wrong, where, what was expected and what to do."""


class NreError(Exception):
    """Base of every error this package raises on purpose; its text is fit to be shown to a user as it is."""


class MapError(NreError):
    """A map is missing, damaged, of another version, or does not belong to the network in use."""


class RecordingError(NreError):
    """A recording cannot be read, or lacks what the task at hand needs (images, poses, calibration)."""


class CalibrationError(NreError):
    """Camera parameters are missing, impossible, or disagree with the image."""


class ConfigError(NreError):
    """A parameter is unknown, of the wrong type, or out of bounds."""


class ModelError(NreError):
    """Network weights are missing, damaged, or belong to another network."""
