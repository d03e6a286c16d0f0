"""Images as users name them, beside a recipe or without one."""

from __future__ import annotations

from pathlib import Path

from genet.config.recipe import Data
from genet.names import check_utf8
from genet.training.image_sources import DOWNLOADED


def images_named(text: str) -> Data:
    """Return the images in a folder, or the embedded digits."""
    return Data(name="digits") if text == "digits" and not Path(text).exists() else Data(name="folder", root=text)


def images_in(data: Data, folder: str) -> Data:
    """Return a recipe's images, in this folder: one folder per class under `train`, or the files of the recipe's dataset."""
    root = Path(folder).absolute()
    classes = data.name.startswith(DOWNLOADED) and any((root / name).exists() for name in ("train", "train.tar"))
    return Data.model_validate({**data.model_dump(), "root": check_utf8(str(root)), **({"name": "folder"} if classes else {})})
