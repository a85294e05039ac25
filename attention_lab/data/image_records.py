"""Images that TFDS has prepared, decoded once into arrays: any dataset with one Image and one ClassLabel feature.

`test` is the dataset's own; where it has none with labels, its `validation` takes that place. What is then missing is
cut from `train`: `images` says how.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from attention_lab.config import DataConfig
from attention_lab.data import prepared
from attention_lab.data.image_folder import decode

LIMIT = 8 * 2**30  # bytes of the largest split that is decoded into memory
_SMALL = 64 * 64  # pixels, up to which threads cost more than they save
_FLAG = prepared.NAME


@dataclasses.dataclass(frozen=True)
class Decoded:
  """Decoded images."""

  classes: list[str]
  splits: Mapping[str, tuple[np.ndarray, np.ndarray]]  # split -> uint8 [N, h, w, c], int32 [N]
  origins: Mapping[str, str]  # split -> TFDS's name of it


def read(data: DataConfig, side: int = 0, others: Sequence[str] = ()) -> Decoded:
  """The splits of `data.name` in `data.dir` that have labels: `train`, and those of `validation` and `test` there are.

  side: as in `image_folder.decode`; 0 = the images must be of one size. others: names that a misspelt one may have
  meant. Raises ValueError, naming the flag, for a dataset that is not prepared or has other features or no split
  `train`, for images of mixed sizes or more than LIMIT bytes, and for labels that are no class.
  """
  name, directory = data.name, data.dir
  prepared.check(name, directory, others)
  features = tuple(prepared.only(name, directory, kind) for kind in ("image", "label"))
  classes = prepared.class_names(name, directory, features[1])
  if "train" not in prepared.splits(name, directory):
    raise ValueError(f"{_FLAG}={name} has no split train; it has {', '.join(prepared.splits(name, directory))}")
  origins = _origins(name, directory, features[1])
  splits = {split: _decoded(data, origin, features, side) for split, origin in origins.items()}
  for split, (_, label) in splits.items():
    outside = np.flatnonzero((label < 0) | (label >= len(classes)))
    if len(outside):
      given = f"{_FLAG}={name}: example {outside[0]} of {origins[split]} has label {label[outside[0]]}"
      raise ValueError(f"{given}, outside 0 to {len(classes) - 1} ({len(outside)} such labels); mend the dataset")
  return Decoded(classes, splits, origins)


def _origins(name: str, directory: str, label: str) -> dict[str, str]:
  there = [split for split in ("train", "validation", "test") if split in prepared.splits(name, directory)]
  if "test" in there and prepared.open_split(name, "test", directory)[0][label] < 0:
    there.remove("test")  # published without labels
  if "test" not in there and "validation" in there:
    return {"train": "train", "test": "validation"}
  return {split: split for split in there}


def _decoded(data: DataConfig, split: str, features: tuple[str, str], side: int) -> tuple[np.ndarray, np.ndarray]:
  name, directory = data.name, data.dir
  records = prepared.open_split(name, split, directory)
  height, width, channels = prepared.image_shape(name, directory, features[0])
  first = _image(records[0][features[0]], side, f"{_FLAG}={name}: example 0 of {split}")
  shape = (*first.shape[:2], 1 if channels == 1 else 3)
  _check_size(name, split, (len(records), *shape))
  image, label = np.empty((len(records), *shape), np.uint8), np.empty(len(records), np.int64)
  starts = range(0, len(records), prepared.BATCH)
  with _mapping(height * width if not side else 0) as mapping:
    for start in prepared.with_progress(starts, f"{name} {split}: decoded", len(starts), None):
      examples = records.__getitems__(range(start, min(start + prepared.BATCH, len(records))))
      places = [f"{_FLAG}={name}: example {start + number} of {split}" for number in range(len(examples))]
      encoded = [example[features[0]] for example in examples]
      for number, pixels in enumerate(mapping(_image, encoded, [side] * len(encoded), places)):
        if pixels.shape[:2] != shape[:2]:
          sizes = f"{shape[1]}x{shape[0]} and {pixels.shape[1]}x{pixels.shape[0]}"
          raise ValueError(f"{places[number]}: images of mixed sizes ({sizes}); give --config.data.side")
        image[start + number] = pixels if pixels.ndim == 3 else pixels[..., None]
      label[start : start + len(examples)] = [example[features[1]] for example in examples]
  return image, label


@contextlib.contextmanager
def _mapping(pixels: int) -> Iterator[Callable]:
  """A `map` over images of so many pixels (0 = unknown)."""
  if 0 < pixels <= _SMALL:
    yield map
  else:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      yield pool.map


def _image(encoded: bytes, side: int, place: str) -> np.ndarray:
  try:
    return decode(io.BytesIO(encoded), side)
  except ValueError as error:
    raise ValueError(f"{place} cannot be decoded ({error}); prepare the dataset again") from None


def _check_size(name: str, split: str, shape: tuple[int, ...]) -> None:
  size = int(np.prod(shape, dtype=np.int64))
  if size > LIMIT:
    side = int((LIMIT / (shape[0] * shape[3])) ** 0.5)
    given = f"{_FLAG}={name}: {shape[0]:,} images of {shape[2]}x{shape[1]} in {split} are {size / 2**30:.1f} GiB"
    raise ValueError(f"{given} decoded, more than {LIMIT // 2**30} GiB; give --config.data.side={side} or less")
