"""Figures as JSON files: what ``--json FILE`` writes."""

from __future__ import annotations

import json
from pathlib import Path

from nre_ros.errors import NreError


def write_json(path: str | Path, figures: dict[str, object]) -> None:
    """Raises NreError when the file cannot be written."""
    try:
        Path(path).write_text(json.dumps(figures, indent=1), encoding="utf-8")
    except OSError as error:
        raise NreError(f"figures cannot be written to {path} ({error.strerror}); choose another --json") from error
