"""Images of one size by class: `digits`, or a folder of the user's own.

A batch is

  image float32 [B, h, w, c], 0 to 1        label int32 [B], an index into `facts["classes"]`

Where the splits are not given, each class is cut 60 / 20 / 20 in order of a hash of the pixels, so that equal images
never stand in two splits, whatever their names.
"""

import functools
import hashlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, UInt8

from attention_lab.config import DataConfig
from attention_lab.data.image_folder import read
from attention_lab.data.source import SPLITS, Arrays, Lazy, Source, chosen, digest

IMAGES = ("digits",)
HELD_OUT = 0.2  # of each class, for validation and for test


class Images(Arrays):
  """Images kept as bytes and divided by `white` when a batch is gathered."""

  def __init__(self, image: UInt8[np.ndarray, "N h w c"], label: Int[np.ndarray, "N"], white: int = 255) -> None:
    super().__init__({"image": image, "label": label.astype(np.int32)})
    self._white = np.float32(white)

  def __getitem__(self, indices: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    batch = super().__getitem__(indices)
    return batch | {"image": batch["image"].astype(np.float32) / self._white}


def load(data: DataConfig) -> Source:
  """The images that `data.name` or `data.path` means; `data.length` plays no part.

  Controls, in accuracy on the test split: the largest class of train, and for `digits` the nearest neighbour. Raises
  ValueError for a bad name or path, unreadable images, images of mixed sizes, fewer than two classes.
  """
  return digits() if chosen(data, IMAGES) else _user_images(data.path)


def digits() -> Source:
  """1,797 scans of handwritten digits, 8×8 in 17 greys (UCI optdigits, its test part, in scikit-learn; no download)."""
  from sklearn.datasets import load_digits

  bundle = load_digits()
  image = bundle.images.astype(np.uint8)[..., None]
  names = [str(name) for name in bundle.target_names]
  parts = split_by_content(image, bundle.target)
  splits = {split: Images(image[rows], bundle.target[rows], white=16) for split, rows in parts.items()}
  neighbour = functools.partial(nearest_neighbour, splits["train"], splits["test"])
  return _source("digits", splits, names, {"nearest neighbour": neighbour})


def _user_images(path: str) -> Source:
  folder = read(path)
  given = len(folder.splits) > 1
  if given:
    splits = {split: Images(*folder.splits[split]) for split in SPLITS}
  else:
    image, label = folder.splits[""]
    splits = {split: Images(image[rows], label[rows]) for split, rows in split_by_content(image, label).items()}
  for split, images in splits.items():
    for number, name in enumerate(folder.classes):
      if not given and number not in images.arrays["label"]:
        raise ValueError(f"--config.data.path={path}: class {name} has too few different images; give at least 3")
    if not len(images):
      raise ValueError(f"--config.data.path={path}: the {split} split is empty; give it images")
  return _source(folder.name, splits, folder.classes, {})


def split_by_content(image: UInt8[np.ndarray, "N h w c"], label: Int[np.ndarray, "N"]) -> dict[str, np.ndarray]:
  """Indices by split, ascending: of each class, in order of the images' hashes, the first fifths are held out.

  Equal images go where the first of them goes, even if their labels differ.
  """
  keys = np.array([hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in image])
  unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
  places = np.empty(len(unique), object)
  for name in np.unique(label[first]):
    members = np.flatnonzero(label[first] == name)
    cut = max(round(HELD_OUT * len(members)), 1)
    places[members] = "train"
    places[members[:cut]], places[members[cut : 2 * cut]] = "test", "validation"
  return {split: np.flatnonzero(places[inverse] == split) for split in SPLITS}


def nearest_neighbour(train: Arrays, test: Arrays) -> float:
  """Accuracy on `test` of the label of the nearest image of `train` in squared distance."""
  known, asked = (part.arrays["image"].reshape(len(part), -1).astype(np.float32) for part in (train, test))
  distance = (known**2).sum(-1) - 2 * asked @ known.T
  return float((train.arrays["label"][distance.argmin(-1)] == test.arrays["label"]).mean())


def _source(name: str, splits: Mapping[str, Images], classes: list[str], controls: Mapping) -> Source:
  digests = {split: digest(images.arrays) for split, images in splits.items()}
  train, test = (splits[split].arrays["label"] for split in ("train", "test"))
  facts = {
    "classes": len(classes),
    "names": classes,
    "image": tuple(splits["train"].arrays["image"].shape[1:]),
    "sizes": {split: len(images) for split, images in splits.items()},
    "chance": 1 / len(classes),
  }
  largest = {"largest class": lambda: float((test == np.bincount(train).argmax()).mean())}
  return Source(name, splits, digests, facts, Lazy(largest | dict(controls)))
