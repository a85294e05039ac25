"""Images as sequences of grey values, row by row: classification without any notion of a neighbour above or below.

Tay et al. 2021, "Long Range Arena", do so with CIFAR-10 in grey. A batch, for images of h rows and w columns, is

  tokens int32 [B, T = h w]    1 + the grey value, 0 … 255        length int32 [B], T        label int32 [B]
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, UInt8

from attention_lab.config import DataConfig
from attention_lab.data import images
from attention_lab.data.dataset import Arrays, Dataset, Describable, Split, digests

VOCABULARY = 257  # no token is 0, the padding of other sequences
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
_ROWS = 1024  # images turned grey at a time


class Pixels(Arrays):
  """Grey values kept in two bytes and widened to int32 when a batch is gathered."""

  def __init__(
    self, image: UInt8[np.ndarray, "N h w"], label: Int[np.ndarray, "N"], describe: Callable[[int], str]
  ) -> None:
    tokens = image.reshape(len(image), -1).astype(np.uint16) + 1
    length = np.full(len(image), tokens.shape[1], np.int32)
    super().__init__({"tokens": tokens, "length": length, "label": label.astype(np.int32)})
    self.describe = describe  # an index to where the image is to be found

  def __getitem__(self, indices: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    batch = super().__getitem__(indices)
    return batch | {"tokens": batch["tokens"].astype(np.int32)}


def load(data: DataConfig, side: int = 0) -> Dataset:
  """The images that `images.load(data, side)` gives, as sequences; `data.length` plays no part."""
  return sequences(images.load(data, side))


def sequences(source: Dataset) -> Dataset:
  """The same splits, labels and controls, with `tokens` in place of `image`; raises ValueError for 2 or 4 channels."""
  splits = {name: Pixels(*_grey(split), _describe(split)) for name, split in source.splits.items()}
  height, width, _ = source.metadata["image"]
  metadata = dict(source.metadata) | {
    "vocabulary": VOCABULARY,
    "length": height * width,
    "truncated": dict.fromkeys(splits, 0),
  }
  return Dataset(f"{source.name}/pixels", splits, digests(splits), metadata, source.controls)


def _describe(split: Split) -> Callable[[int], str]:
  return split.describe if isinstance(split, Describable) else "image {}".format


def _grey(split: Split) -> tuple[np.ndarray, np.ndarray]:
  """Grey values uint8 [N, h, w], and labels."""
  parts, labels = [], []
  for start in range(0, len(split), _ROWS):
    batch = split[np.arange(start, min(start + _ROWS, len(split)))]
    parts.append(np.rint(255 * luminance(batch["image"])).astype(np.uint8))
    labels.append(batch["label"])
  return np.concatenate(parts), np.concatenate(labels)


def luminance(image: Float[np.ndarray, "B h w c"]) -> Float[np.ndarray, "B h w"]:
  """The brightness of images of one channel or of red, green and blue, in their own scale."""
  if image.shape[-1] not in (1, 3):
    raise ValueError(
      f"images of {image.shape[-1]} channels have no grey value; give them 1 (grey) or 3 (red, green, blue)"
    )
  return image[..., 0] if image.shape[-1] == 1 else image @ np.array(LUMINANCE, image.dtype)
