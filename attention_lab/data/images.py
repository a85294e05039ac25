"""Images of one size by class: `digits`, what TFDS has prepared, or a folder of the user's own.

A batch is

  image float32 [B, h, w, c], 0 to 1        label int32 [B], an index into `metadata["classes"]`

Splits that are not given are cut class by class in order of a hash of the pixels, so that equal images never stand in
two splits, whatever their names: 60 / 20 / 20 of `digits` and of a folder; of a dataset of TFDS a tenth of its train
becomes validation, and another one test where it has neither a test nor a validation split with labels.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from attention_lab.config import DataConfig
from attention_lab.data import controls
from attention_lab.data.dataset import SPLITS, Arrays, Dataset, Lazy, digests, validate_name
from attention_lab.data.image_files import read_folder, read_prepared

IMAGES = ("digits", "fashion_mnist", "cifar10", "mnist", "imagenet2012")  # names offered; others of TFDS are read too
HELD_OUT = 0.2  # fraction of each class, for validation and for test
TENTH = 0.1  # the same fraction for a dataset of TFDS
FITTED = 20_000  # images of train that the logistic regression sees
FITTED_SIZE = 100 * 4096  # classes times values of an image, beyond which it would take hours


class Images(Arrays):
  """A split of images, stored as bytes and divided by `white` when a batch is gathered."""

  def __init__(
    self,
    image: UInt8[np.ndarray, "N h w c"],
    label: Int[np.ndarray, "N"],
    white: int = 255,
    name: Callable[[int], str] = "image {}".format,
  ) -> None:
    super().__init__({"image": image, "label": label.astype(np.int32)})
    self._white, self._name = np.float32(white), name

  def __getitem__(self, indices: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    batch = super().__getitem__(indices)
    return batch | {"image": batch["image"].astype(np.float32) / self._white}

  def describe(self, index: int) -> str:
    """The origin of an image: its file, or its number in the dataset as published."""
    return self._name(index)


def load(data: DataConfig, side: int = 0) -> Dataset:
  """The images that a data configuration names.

  Args:
    data: `data.name` in `data.dir`, or `data.path` for the user's own folder; `data.length` plays no part.
    side: pixels; images are cut to their middle square and scaled to side x side; 0 = they stay as they are.

  Returns:
    A dataset of `image` and `label`, see the module. Controls, in accuracy on the test split: the largest class of
    train; for `digits` the nearest neighbour, for TFDS's datasets a logistic regression on pixels.

  Raises:
    ValueError: a bad name or path, a dataset that is not prepared, unreadable images, images of mixed sizes or too
      many, labels that are no class, fewer than two classes.
  """
  if side < 0:
    raise ValueError(f"--config.data.side={side} is negative; give pixels, or 0 for images as they are")
  name = validate_name(data, IMAGES, allow_other=True)
  if name == "digits":
    if side not in (0, 8):
      raise ValueError(f"--config.data.side={side}: digits are 8x8 and are not scaled; give 0")
    return digits()
  return _prepared_images(data, side) if name else _user_images(data.path, side)


def digits() -> Dataset:
  """1,797 scans of handwritten digits, 8×8 in 17 greys (UCI optdigits, its test part, in scikit-learn; no download)."""
  from sklearn.datasets import load_digits

  bundle = load_digits()
  image = bundle.images.astype(np.uint8)[..., None]
  names = [str(name) for name in bundle.target_names]
  parts = split_by_content(image, bundle.target)
  splits = {
    split: Images(image[rows], bundle.target[rows], 16, functools.partial(_numbered, "digits", rows))
    for split, rows in parts.items()
  }
  return _dataset("digits", splits, names, {"nearest neighbour": lambda: _nearest_neighbour(splits)})


def _prepared_images(data: DataConfig, side: int) -> Dataset:
  records = read_prepared(data, side, IMAGES)
  splits, origins = dict(records.splits), dict(records.origins)
  rows = {split: np.arange(len(label)) for split, (_, label) in splits.items()}
  missing = [split for split in ("validation", "test") if split not in splits]
  if missing:
    image, label = splits["train"]
    rows |= split_by_content(image, label, missing, TENTH)
    splits |= {split: (image[rows[split]], label[rows[split]]) for split in ("train", *missing)}
    origins |= dict.fromkeys(missing, "train")
  ready = {
    split: Images(*splits[split], name=functools.partial(_numbered, origins[split], rows[split])) for split in SPLITS
  }
  for split in missing:
    if not len(ready[split]):
      raise ValueError(f"--config.data.name={data.name}: train has too few images to cut a tenth of it for {split}")
  values = math.prod(ready["train"].arrays["image"].shape[1:])
  small = values * len(records.classes) <= FITTED_SIZE
  fit = {"logistic regression on pixels": lambda: _logistic_regression(ready)} if small else {}
  origin = {split: f"a tenth of {origins[split]}" if split in missing else origins[split] for split in SPLITS}
  return _dataset(data.name, ready, records.classes, fit, {"origins": origin})


def _numbered(name: str, rows: np.ndarray, index: int) -> str:
  return f"image {rows[index]} of {name}"


def _user_images(path: str, side: int) -> Dataset:
  folder = read_folder(path, side)
  published = len(folder.splits) > 1
  if published:
    splits = {split: Images(*folder.splits[split], name=folder.files[split].__getitem__) for split in SPLITS}
  else:
    image, label = folder.splits[""]
    parts = split_by_content(image, label)
    splits = {
      split: Images(image[rows], label[rows], name=[folder.files[""][row] for row in rows].__getitem__)
      for split, rows in parts.items()
    }
  for split, images in splits.items():
    for number, name in enumerate(folder.classes):
      if not published and number not in images.arrays["label"]:
        raise ValueError(f"--config.data.path={path}: class {name} has too few different images; give at least 3")
    if not len(images):
      raise ValueError(f"--config.data.path={path}: the {split} split is empty; give it images")
  return _dataset(folder.name, splits, folder.classes)


def split_by_content(
  image: UInt8[np.ndarray, "N h w c"],
  label: Int[np.ndarray, "N"],
  held_out: Sequence[str] = ("test", "validation"),
  share: float = HELD_OUT,
) -> dict[str, np.ndarray]:
  """Indices by split, ascending: of each class, in order of the images' hashes, the first parts are held out.

  held_out: the splits that get a part each, of `share` of the class and one image at least; train keeps the rest, and
  one image at least. Equal images go where the first of them goes, even if their labels differ.
  """
  keys = np.array([hashlib.sha256(pixels.tobytes()).digest() for pixels in image])
  unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
  splits = np.full(len(unique), "train", object)
  for name in np.unique(label[first]):
    members = np.flatnonzero(label[first] == name)
    cut = min(max(round(share * len(members)), 1), (len(members) - 1) // len(held_out))
    for number, split in enumerate(held_out):
      splits[members[number * cut : (number + 1) * cut]] = split
  return {split: np.flatnonzero(splits[inverse] == split) for split in SPLITS if split in ("train", *held_out)}


def _nearest_neighbour(splits: Mapping[str, Arrays]) -> float:
  train, test = (splits[split].arrays for split in ("train", "test"))
  known, asked = (part["image"].reshape(len(part["label"]), -1).astype(np.float32) for part in (train, test))
  return controls.nearest_neighbour(known, train["label"], asked, test["label"])


def _logistic_regression(splits: Mapping[str, Arrays]) -> float:
  """On FITTED images of train at most, evenly spaced."""
  train, test = splits["train"], splits["test"]
  rows = np.linspace(0, len(train) - 1, min(len(train), FITTED)).astype(int)
  known, asked = (
    part[index]["image"].reshape(len(index), -1) for part, index in ((train, rows), (test, np.arange(len(test))))
  )
  return controls.logistic_regression(known, train.arrays["label"][rows], asked, test.arrays["label"])


def _dataset(
  name: str,
  splits: Mapping[str, Images],
  classes: list[str],
  lines: Mapping[str, Callable[[], float]] = MappingProxyType({}),
  metadata: Mapping[str, Any] = MappingProxyType({}),
) -> Dataset:
  """The dataset of these splits, with the largest class among its reference lines."""
  train, test = (splits[split].arrays["label"] for split in ("train", "test"))
  largest = {"largest class": lambda: controls.largest_class(train, test)}
  shared = {
    "classes": len(classes),
    "names": classes,
    "image": tuple(splits["train"].arrays["image"].shape[1:]),
    "sizes": {split: len(images) for split, images in splits.items()},
    "chance": 1 / len(classes),
  }
  return Dataset(name, splits, digests(splits), shared | dict(metadata), Lazy(largest | dict(lines)))
