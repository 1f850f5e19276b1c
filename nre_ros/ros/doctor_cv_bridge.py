"""What the doctor asks of cv_bridge, in a process of its own: built for another NumPy, it may crash it."""

from __future__ import annotations

import json
import sys

import numpy as np

STAND_IN = "our own decoder reads the images"


def examine() -> dict[str, str]:
    """One finding, as an object for JSON: level, subject, text, advice."""
    found = f"NumPy {np.__version__}"
    try:
        from cv_bridge import CvBridge
    except ModuleNotFoundError as error:
        if error.name != "cv_bridge":
            return _finding("warn", f"{found}, cv_bridge lacks {error.name}; {STAND_IN}")
        return _finding("ok", f"{found}; cv_bridge is not installed: {STAND_IN}")
    except Exception as error:
        return _finding("warn", f"{found}, cv_bridge does not import ({error}); {STAND_IN}", _advice())
    try:
        from sensor_msgs.msg import Image

        pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
        message = Image(height=2, width=4, encoding="bgr8", step=12, data=pixels.tobytes())
        same = np.array_equal(CvBridge().imgmsg_to_cv2(message, "rgb8"), pixels[..., ::-1])
    except Exception as error:
        return _finding("warn", f"{found}, cv_bridge fails ({error}); {STAND_IN}", _advice())
    if not same:
        return _finding("warn", f"{found}, cv_bridge turns the colours of an image wrong; {STAND_IN}", _advice())
    return _finding("ok", f"{found}, cv_bridge works with it")


def _advice() -> str:
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        return "other nodes need it: pip install 'numpy<2', which is what the distribution's cv_bridge was built for"
    return "other nodes need it: install the cv_bridge of your distribution again"


def _finding(level: str, text: str, advice: str = "") -> dict[str, str]:
    return {"level": level, "subject": "cv_bridge", "text": text, "advice": advice}


if __name__ == "__main__":
    print(json.dumps([examine()]))
    sys.exit(0)
