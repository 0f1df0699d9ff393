"""Where things are, and the two ways to say no. Imported by everything here."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What is installed, shared by all brokers: the build's folder, for it can be made again.
INSTALLED = Path(os.environ.get("WHIMBREL_BROKERS", ROOT / "target" / "brokers")).resolve()
VENV = INSTALLED / "venv"
KAFKA = INSTALLED / "kafka"


class Refused(Exception):
    """Cannot be done. The text says what to do; no traceback is shown."""
