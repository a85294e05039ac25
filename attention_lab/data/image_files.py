"""Images with classes, decoded once into arrays: a folder of the user's own, or a dataset that TFDS has prepared.

A folder is PATH/CLASS/*.png, or PATH/{train,validation,test}/CLASS/*.png. Files of SUFFIXES count, others and
hidden ones are passed over. All images are upright as their EXIF says, and have one size or are brought to one by
`side`; they are grey where every one is, else RGB (a palette is resolved, transparency is dropped).

A dataset of TFDS is any with one Image and one ClassLabel feature. `test` is the dataset's own; where it has none with
labels, its `validation` takes that place. What is then missing is cut from `train`: `images` says how.
"""

import contextlib
import dataclasses
import io
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from attention_lab.config import DataConfig
from attention_lab.data import prepared
from attention_lab.data.dataset import SPLITS, validate_path
from attention_lab.data.text_files import FLAG, is_hidden

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
LIMIT = 8 * 2**30  # bytes of the largest split that is decoded into memory
_NAME = prepared.NAME
_GREY = ("1", "L", "LA")  # modes of Pillow
_SMALL = 64 * 64  # pixels, up to which threads cost more than they save

Labelled = tuple[np.ndarray, np.ndarray]  # images uint8 [N, h, w, c] and labels int [N]


@dataclasses.dataclass(frozen=True)
class Folder:
  """The decoded images of a user's folder; the split is "" where the folder is not split."""

  name: str
  classes: list[str]
  splits: Mapping[str, Labelled]
  files: Mapping[str, list[str]]  # by split, the path of each image


@dataclasses.dataclass(frozen=True)
class Decoded:
  """The decoded images of a dataset of TFDS."""

  classes: list[str]
  splits: Mapping[str, Labelled]
  origins: Mapping[str, str]  # split -> TFDS's name of it


def read_folder(path: str, side: int = 0) -> Folder:
  """The images of a folder, by class.

  Args:
    path: the folder, ~ expanded.
    side: pixels; the images are cut and scaled to side x side, see `decode`; 0 = as they are, all of one size.

  Returns:
    Images uint8 [N, h, w, c] and labels int32 [N] by split.

  Raises:
    ValueError: the flag and the file that is unreadable, of another size, or of a class that train lacks.
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
  images = {
    file: _decode_file(file, side) for by_class in files.values() for names in by_class.values() for file in names
  }
  _check_sizes(images)
  colour = any(image.ndim == 3 for image in images.values())
  splits = {split: _stack(by_class, classes, images, colour) for split, by_class in files.items()}
  paths = {split: [str(file) for names in by_class.values() for file in names] for split, by_class in files.items()}
  return Folder(root.resolve().name, classes, splits, paths)


def _files(root: Path) -> dict[str, dict[str, list[Path]]]:
  """Files by split and class; the split is "" where the folder is not split."""
  train = root / "train"
  if not (train.is_dir() and any(child.is_dir() and not is_hidden(child) for child in train.iterdir())):
    return {"": _classes(root)}
  for split in SPLITS:
    if not (root / split).is_dir():
      raise ValueError(f"{FLAG}={root} has train/ but no {split}/; give {', '.join(SPLITS)}, or the classes alone")
  return {split: _classes(root / split) for split in SPLITS}


def _classes(folder: Path) -> dict[str, list[Path]]:
  """Image files by class folder, folders without images left out."""
  by_class = {
    child.name: sorted(file for file in child.iterdir() if file.suffix.lower() in SUFFIXES and not is_hidden(file))
    for child in sorted(folder.iterdir())
    if child.is_dir() and not is_hidden(child)
  }
  return {name: files for name, files in by_class.items() if files}


def decode(stream: Path | io.BytesIO, side: int = 0) -> np.ndarray:
  """uint8 [h, w] for a grey image, else [h, w, 3], upright as its EXIF says; with `side`, its middle square, scaled to
  side x side (bicubic).

  Raises ValueError, saying the reason, for a file that is no image of 8 bits a channel.
  """
  from PIL import Image, ImageOps

  try:
    with Image.open(stream) as image:
      if image.mode.startswith(("I", "F")):
        raise ValueError(f"its mode is {image.mode}, more than 8 bits a channel")
      ImageOps.exif_transpose(image, in_place=True)
      plain = image.convert("L" if image.mode in _GREY else "RGB")
      return np.asarray(ImageOps.fit(plain, (side, side)) if side else plain)
  except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
    raise ValueError(" ".join(str(error).split())) from None


def _decode_file(file: Path, side: int) -> np.ndarray:
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
) -> Labelled:
  labelled = [(images[file], classes.index(name)) for name, files in by_class.items() for file in files]
  if not labelled:
    return np.zeros((0, 1, 1, 1), np.uint8), np.zeros(0, np.int32)
  pixels = [image if image.ndim == 3 else np.repeat(image[..., None], 3 if colour else 1, -1) for image, _ in labelled]
  return np.stack(pixels), np.array([label for _, label in labelled], np.int32)


def read_prepared(data: DataConfig, side: int = 0, others: Sequence[str] = ()) -> Decoded:
  """The splits of a dataset of TFDS that have labels: `train`, and those of `validation` and `test` there are.

  Args:
    data: `data.name` in `data.dir`.
    side: pixels, as in `read_folder`; 0 = the images must be of one size.
    others: names that a misspelt one may have meant.

  Returns:
    Images uint8 [N, h, w, c] and labels int64 [N] by split.

  Raises:
    ValueError: a dataset that is not prepared or has other features or no split `train`, images of mixed sizes or more
      than LIMIT bytes, or labels that are no class; the flag is named.
  """
  name, directory = data.name, data.dir
  prepared.check(name, directory, others)
  features = prepared.only(name, directory, "image"), prepared.only(name, directory, "label")
  classes = prepared.class_names(name, directory, features[1])
  if "train" not in prepared.splits(name, directory):
    raise ValueError(f"{_NAME}={name} has no split train; it has {', '.join(prepared.splits(name, directory))}")
  origins = _origins(name, directory, features[1])
  splits = {split: _decode_split(data, origin, features, side) for split, origin in origins.items()}
  for split, (_, label) in splits.items():
    outside = np.flatnonzero((label < 0) | (label >= len(classes)))
    if len(outside):
      example = f"{_NAME}={name}: example {outside[0]} of {origins[split]} has label {label[outside[0]]}"
      raise ValueError(f"{example}, outside 0 to {len(classes) - 1} ({len(outside)} such labels); mend the dataset")
  return Decoded(classes, splits, origins)


def _origins(name: str, directory: str, label: str) -> dict[str, str]:
  """The published split behind each split, where there is one."""
  available = [split for split in ("train", "validation", "test") if split in prepared.splits(name, directory)]
  if "test" in available and prepared.open_split(name, "test", directory)[0][label] < 0:
    available.remove("test")  # published without labels
  if "test" not in available and "validation" in available:
    return {"train": "train", "test": "validation"}
  return {split: split for split in available}


def _decode_split(data: DataConfig, split: str, features: tuple[str, str], side: int) -> Labelled:
  name, directory = data.name, data.dir
  records = prepared.open_split(name, split, directory)
  height, width, channels = prepared.image_shape(name, directory, features[0])
  first = _decode_record(records[0][features[0]], side, f"{_NAME}={name}: example 0 of {split}")
  shape = (*first.shape[:2], 1 if channels == 1 else 3)
  _check_memory(name, split, (len(records), *shape))
  image, label = np.empty((len(records), *shape), np.uint8), np.empty(len(records), np.int64)
  starts = range(0, len(records), prepared.BATCH)
  with _mapping(height * width if not side else 0) as mapping:
    for start in prepared.with_progress(starts, f"{name} {split}: decoded", len(starts), None):
      examples = records.__getitems__(range(start, min(start + prepared.BATCH, len(records))))
      names = [f"{_NAME}={name}: example {start + number} of {split}" for number in range(len(examples))]
      encoded = [example[features[0]] for example in examples]
      for number, pixels in enumerate(mapping(_decode_record, encoded, [side] * len(encoded), names)):
        if pixels.shape[:2] != shape[:2]:
          sizes = f"{shape[1]}x{shape[0]} and {pixels.shape[1]}x{pixels.shape[0]}"
          raise ValueError(f"{names[number]}: images of mixed sizes ({sizes}); give --config.data.side")
        image[start + number] = pixels if pixels.ndim == 3 else pixels[..., None]
      label[start : start + len(examples)] = [example[features[1]] for example in examples]
  return image, label


@contextlib.contextmanager
def _mapping(pixels: int) -> Iterator[Callable]:
  """A `map` over images of that many pixels (0 = unknown), by threads where they pay."""
  if 0 < pixels <= _SMALL:
    yield map
  else:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      yield pool.map


def _decode_record(encoded: bytes, side: int, example: str) -> np.ndarray:
  try:
    return decode(io.BytesIO(encoded), side)
  except ValueError as error:
    raise ValueError(f"{example} cannot be decoded ({error}); prepare the dataset again") from None


def _check_memory(name: str, split: str, shape: tuple[int, ...]) -> None:
  size = int(np.prod(shape, dtype=np.int64))
  if size > LIMIT:
    side = int((LIMIT / (shape[0] * shape[3])) ** 0.5)
    decoded = f"{_NAME}={name}: {shape[0]:,} images of {shape[2]}x{shape[1]} in {split} are {size / 2**30:.1f} GiB"
    raise ValueError(f"{decoded} decoded, more than {LIMIT // 2**30} GiB; give --config.data.side={side} or less")
