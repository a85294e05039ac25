"""Images of one size by class: `digits`, what TFDS has prepared, or a folder of the user's own.

A batch is

  image float32 [B, h, w, c], 0 to 1        label int32 [B], an index into `metadata["classes"]`

Splits that are not given are cut class by class in order of a hash of the pixels, so that equal images never stand in
two splits, whatever their names: 60 / 20 / 20 of `digits` and of a folder; of a dataset of TFDS a tenth of its train
becomes validation, and another one test where it has neither a test nor a validation split with labels.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from attention_lab.config import DataConfig
from attention_lab.data import image_folder, image_records
from attention_lab.data.dataset import SPLITS, Arrays, Dataset, Lazy, digest, validate_name

IMAGES = ("digits", "fashion_mnist", "cifar10", "mnist", "imagenet2012")  # others of TFDS are read by their features
HELD_OUT = 0.2  # of each class, for validation and for test
TENTH = 0.1  # the same of a dataset of TFDS
FITTED = 20_000  # images of train that the logistic regression sees
FITTED_SIZE = 100 * 4096  # classes times values of an image, beyond which it would take hours


class Images(Arrays):
  """Images kept as bytes and divided by `white` when a batch is gathered."""

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
    """Where the image is to be found: its file, or its number in the dataset as published."""
    return self._name(index)


def load(data: DataConfig, side: int = 0) -> Dataset:
  """The images that `data.name` in `data.dir`, or `data.path`, means; `data.length` plays no part.

  side: images are cut to their middle square and scaled to side x side; 0 = they stay as they are. Controls, in
  accuracy on the test split: the largest class of train; for `digits` the nearest neighbour, for TFDS's datasets a
  logistic regression on pixels. Raises ValueError for a bad name or path, a dataset that is not prepared, unreadable
  images, images of mixed sizes or too many, labels that are no class, fewer than two classes.
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
  neighbour = functools.partial(nearest_neighbour, splits["train"], splits["test"])
  return _source("digits", splits, names, {"nearest neighbour": neighbour})


def _prepared_images(data: DataConfig, side: int) -> Dataset:
  records = image_records.read(data, side, IMAGES)
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
  fit = functools.partial(logistic_regression, ready["train"], ready["test"])
  values = math.prod(ready["train"].arrays["image"].shape[1:])
  controls = {"logistic regression on pixels": fit} if values * len(records.classes) <= FITTED_SIZE else {}
  source = _source(data.name, ready, records.classes, controls)
  said = {split: f"a tenth of {origins[split]}" if split in missing else origins[split] for split in SPLITS}
  return dataclasses.replace(source, metadata=source.metadata | {"origins": said})


def _numbered(name: str, rows: np.ndarray, index: int) -> str:
  return f"image {rows[index]} of {name}"


def _user_images(path: str, side: int) -> Dataset:
  folder = image_folder.read(path, side)
  given = len(folder.splits) > 1
  if given:
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
      if not given and number not in images.arrays["label"]:
        raise ValueError(f"--config.data.path={path}: class {name} has too few different images; give at least 3")
    if not len(images):
      raise ValueError(f"--config.data.path={path}: the {split} split is empty; give it images")
  return _source(folder.name, splits, folder.classes, {})


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
  places = np.full(len(unique), "train", object)
  for name in np.unique(label[first]):
    members = np.flatnonzero(label[first] == name)
    cut = min(max(round(share * len(members)), 1), (len(members) - 1) // len(held_out))
    for number, split in enumerate(held_out):
      places[members[number * cut : (number + 1) * cut]] = split
  return {split: np.flatnonzero(places[inverse] == split) for split in SPLITS if split in ("train", *held_out)}


def logistic_regression(train: Arrays, test: Arrays) -> float:
  """Accuracy on `test` of a logistic regression on the pixels of `train`: of FITTED images at most, evenly spaced."""
  from sklearn.linear_model import LogisticRegression

  rows = np.linspace(0, len(train) - 1, min(len(train), FITTED)).astype(int)
  known, asked = (
    part[index]["image"].reshape(len(index), -1) for part, index in ((train, rows), (test, np.arange(len(test))))
  )
  mean = known.mean(axis=0)  # without it the solver takes three times as long
  model = LogisticRegression(C=0.1, tol=1e-3, max_iter=500).fit(known - mean, train.arrays["label"][rows])
  return float(model.score(asked - mean, test.arrays["label"]))


def nearest_neighbour(train: Arrays, test: Arrays) -> float:
  """Accuracy on `test` of the label of the nearest image of `train` in squared distance."""
  known, asked = (part.arrays["image"].reshape(len(part), -1).astype(np.float32) for part in (train, test))
  distance = (known**2).sum(-1) - 2 * asked @ known.T
  return float((train.arrays["label"][distance.argmin(-1)] == test.arrays["label"]).mean())


def _source(name: str, splits: Mapping[str, Images], classes: list[str], controls: Mapping) -> Dataset:
  digests = {split: digest(images.arrays) for split, images in splits.items()}
  train, test = (splits[split].arrays["label"] for split in ("train", "test"))
  metadata = {
    "classes": len(classes),
    "names": classes,
    "image": tuple(splits["train"].arrays["image"].shape[1:]),
    "sizes": {split: len(images) for split, images in splits.items()},
    "chance": 1 / len(classes),
  }
  largest = {"largest class": lambda: float((test == np.bincount(train).argmax()).mean())}
  return Dataset(name, splits, digests, metadata, Lazy(largest | dict(controls)))
