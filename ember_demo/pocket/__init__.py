"""The embedded world and the small model that is trained on it."""

from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "assets"
