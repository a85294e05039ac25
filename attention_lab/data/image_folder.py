"""A folder of images by class: PATH/CLASS/*.png, or PATH/{train,validation,test}/CLASS/*.png.

Files of SUFFIXES count, others are passed over. All images have one size, or are brought to one by `side`; they are
grey where every one is, else RGB (a palette is resolved, transparency is dropped).
"""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from attention_lab.data.dataset import SPLITS, validate_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
FLAG = "--config.data.path"
_GREY = ("1", "L", "LA")


@dataclasses.dataclass(frozen=True)
class Folder:
  """Decoded images."""

  name: str
  classes: list[str]
  splits: Mapping[str, tuple[np.ndarray, np.ndarray]]  # split, or "" for all -> uint8 [N, h, w, c], int32 [N]
  files: Mapping[str, list[str]]  # split, or "" for all -> the path of each image


def read(path: str, side: int = 0) -> Folder:
  """Decodes every image once; raises ValueError, naming the flag and the file, for whatever does not fit.

  side: the images are cut and scaled to side x side, see `decode`; 0 = they stay as they are, and must be of one size.
  """
  root = validate_path(path)
  try:
    files = _files(root)
  except OSError as error:
    reason = f"{error.filename or root}: {error.strerror}"
    raise ValueError(f"{FLAG}={root} cannot be read ({reason}); give a folder of class folders") from None
  first = files.get("train", next(iter(files.values())))
  classes = list(first)
  if len(classes) < 2:
    kinds = ", ".join(SUFFIXES)
    raise ValueError(f"{FLAG}={root} has {len(classes)} class folders with images ({kinds}); give two or more")
  for split, by_class in files.items():
    for name in by_class.keys() - first.keys():
      raise ValueError(f"{FLAG}={root}: class {name} of {split} is not in train; add it there or remove it")
  images = {file: _decode(file, side) for by_class in files.values() for names in by_class.values() for file in names}
  _check_sizes(images)
  colour = any(image.ndim == 3 for image in images.values())
  splits = {split: _stack(by_class, classes, images, colour) for split, by_class in files.items()}
  paths = {split: [str(file) for names in by_class.values() for file in names] for split, by_class in files.items()}
  return Folder(root.resolve().name, classes, splits, paths)


def _files(root: Path) -> dict[str, dict[str, list[Path]]]:
  """Files by split and class; the split is "" where the folder is not split."""
  train = root / "train"
  if not (train.is_dir() and any(child.is_dir() for child in train.iterdir())):
    return {"": _classes(root)}
  for split in SPLITS:
    if not (root / split).is_dir():
      raise ValueError(f"{FLAG}={root} has train/ but no {split}/; give {', '.join(SPLITS)}, or the classes alone")
  return {split: _classes(root / split) for split in SPLITS}


def _classes(folder: Path) -> dict[str, list[Path]]:
  found = {
    child.name: sorted(file for file in child.iterdir() if file.suffix.lower() in SUFFIXES)
    for child in sorted(folder.iterdir())
    if child.is_dir()
  }
  return {name: files for name, files in found.items() if files}


def decode(stream: Path | io.BytesIO, side: int = 0) -> np.ndarray:
  """uint8 [h, w] for a grey image, else [h, w, 3]; with `side`, its middle square, scaled to side x side (bicubic).

  Raises ValueError, saying the reason, for what is no image of 8 bits a channel.
  """
  from PIL import Image, ImageOps

  try:
    with Image.open(stream) as image:
      if image.mode.startswith(("I", "F")):
        raise ValueError(f"its mode is {image.mode}, more than 8 bits a channel")
      plain = image.convert("L" if image.mode in _GREY else "RGB")
      return np.asarray(ImageOps.fit(plain, (side, side)) if side else plain)
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    raise ValueError(" ".join(str(error).split())) from None


def _decode(file: Path, side: int) -> np.ndarray:
  try:
    return decode(file, side)
  except ValueError as error:
    raise ValueError(f"{FLAG}: {file} cannot be decoded ({error}); convert it to 8-bit PNG or remove it") from None


def _check_sizes(images: Mapping[Path, np.ndarray]) -> None:
  (first, image), *others = images.items()
  for file, other in others:
    if other.shape[:2] != image.shape[:2]:
      sizes = " and ".join(f"{name} is {a.shape[1]}x{a.shape[0]}" for name, a in ((first, image), (file, other)))
      raise ValueError(f"{FLAG}: images of mixed sizes: {sizes}; resize them to one size, or give --config.data.side")


def _stack(
  by_class: Mapping[str, list[Path]], classes: list[str], images: Mapping[Path, np.ndarray], colour: bool
) -> tuple[np.ndarray, np.ndarray]:
  labelled = [(images[file], classes.index(name)) for name, files in by_class.items() for file in files]
  if not labelled:
    return np.zeros((0, 1, 1, 1), np.uint8), np.zeros(0, np.int32)
  pixels = [image if image.ndim == 3 else np.repeat(image[..., None], 3 if colour else 1, -1) for image, _ in labelled]
  return np.stack(pixels), np.array([label for _, label in labelled], np.int32)
