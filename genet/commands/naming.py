"""What users name on the command line beside files: images."""

from __future__ import annotations

from pathlib import Path

from genet.spec.recipe import Data


def images_named(text: str) -> Data:
    """Images by folder, or those that come along."""
    return Data(name="digits") if text == "digits" and not Path(text).exists() else Data(name="folder", root=text)
