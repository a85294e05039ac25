"""Training images drawn anew at each step: crop, flip, RandAugment, then mixup or CutMix, all from (seed, step).

Each kind of draw has a generator of its own, so that switching one on leaves the draws of the others as they were. With
mixup or CutMix a batch also has

  label_b int32 [B]     the label of the image that was mixed in
  mix float32 [B]       the weight of `label`; that of `label_b` is 1 − mix

and the loss of an example is mix · loss(label) + (1 − mix) · loss(label_b). Both weights are drawn for each example.
Crop with padding and flip: He et al. 2016, "Deep Residual Learning", §4.2. mixup: Zhang et al. 2018. CutMix: Yun et al.
2019; with mixup too, each example takes one of them with probability ½.

RandAugment (Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space", §3)
applies n operations to each image, each drawn from a list, all of one magnitude. The operations are the published
fourteen (identity, autocontrast, equalize, rotate, solarize, color, posterize, contrast, brightness, sharpness, shear
and translate in x and y), on 8-bit images by Pillow; grey images have no color, and draw from the other thirteen. The
strongest magnitude, 30, is AutoAugment's (Cubuk et al. 2019, table 6): rotation by 30°, shear by 0.3, translation by
150/331 of the side, contrast and its like by a factor of 1 ± 0.9, 4 bits kept, all inverted. The direction is drawn
where there are two; what moves in from outside is black.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from attention_lab.data.dataset import Split

STRONGEST = 30  # the largest magnitude of RandAugment
OPERATIONS = (
  "identity autocontrast equalize rotate solarize posterize contrast brightness sharpness shear_x shear_y translate_x "
  "translate_y color"
).split()  # of RandAugment; color last: grey images draw from those before it
_CROP, _FLIP, _RANDAUGMENT, _MIX = range(1, 5)  # kinds of draws, the last part of their generators' seeds


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Settings of augmentation; the fields are flags `--config.data.NAME`. Raises ValueError for values out of range."""

  crop: int = 0  # pixels of black around an image before its own size is cut out again; 0 = none
  flip: bool = False  # left and right exchanged with probability ½
  randaugment: int = 0  # operations on each image; 0 = none
  magnitude: int = 9  # of these operations, 0 to 30
  mixup: float = 0.0  # α: the weight of an image is drawn from Beta(α, α); 0 = none
  cutmix: float = 0.0  # α: the area that stays is drawn from Beta(α, α); 0 = none

  def __post_init__(self) -> None:
    for name in ("crop", "randaugment", "mixup", "cutmix"):
      value = getattr(self, name)
      if not 0 <= value < math.inf:
        raise ValueError(f"--config.data.{name}={value} is out of range; give 0 (none) or more")
    if not 0 <= self.magnitude <= STRONGEST:
      raise ValueError(f"--config.data.magnitude={self.magnitude} is out of range; give 0 to {STRONGEST}")

  def __bool__(self) -> bool:
    """True if any augmentation is switched on."""
    return bool(self.crop or self.flip or self.randaugment or self.mixup or self.cutmix)


class Augmented:
  """A split of images (float32 [B, h, w, c] in 0 to 1, with labels) whose training batches are drawn by `settings`.

  Read by index alone, as evaluation does, the images are as they were.
  """

  split: Split  # the split that is augmented
  describe: Callable[[int], str]  # an example as readable text, where the split has it

  def __init__(self, split: Split, settings: Augmentation) -> None:
    """Raises ValueError for a crop that may miss the image, and for RandAugment on neither grey nor RGB images."""
    self.split, self._settings = split, settings
    *sides, channels = split[np.arange(1)]["image"].shape[1:]
    if settings.crop >= min(sides):
      raise ValueError(f"--config.data.crop={settings.crop} may miss the image; give less than {min(sides)}")
    if settings.randaugment and channels not in (1, 3):
      flag = f"--config.data.randaugment={settings.randaugment} on images of {channels} channels"
      raise ValueError(f"{flag} is not defined; give 0, or grey or RGB images")
    if hasattr(split, "describe"):
      self.describe = split.describe

  def __len__(self) -> int:
    return len(self.split)

  def __getitem__(self, indices: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    return self.split[indices]

  def augmented(self, indices: Int[np.ndarray, "B"], seed: int, step: int) -> dict[str, np.ndarray]:
    """The examples at `indices`, drawn for `step` of the run of `seed`."""
    settings, batch = self._settings, self.split[indices]

    def draws(kind: int) -> np.random.Generator:
      return np.random.default_rng((seed, step, 0, kind))

    image = batch["image"]
    if settings.crop:
      image = crop(image, settings.crop, draws(_CROP))
    if settings.flip:
      image = flip(image, draws(_FLIP))
    if settings.randaugment:
      image = randaugment(image, settings.randaugment, settings.magnitude, draws(_RANDAUGMENT))
    if settings.mixup or settings.cutmix:
      image, partner, mix = mixed(image, settings.mixup, settings.cutmix, draws(_MIX))
      batch |= {"label_b": batch["label"][partner], "mix": mix}
    return batch | {"image": image}


def crop(image: Float[np.ndarray, "B h w c"], padding: int, draws: np.random.Generator) -> Float[np.ndarray, "B h w c"]:
  """Each image moved by up to `padding` pixels either way, black outside of it."""
  count, height, width, channels = image.shape
  padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width, channels), axis=(1, 2, 3))
  top, left = draws.integers(0, 2 * padding + 1, (2, count))
  return windows[np.arange(count), top, left, 0]


def flip(image: Float[np.ndarray, "B h w c"], draws: np.random.Generator) -> Float[np.ndarray, "B h w c"]:
  """Each image mirrored, left for right, with probability ½."""
  turned = draws.random(len(image)) < 0.5
  return np.where(turned[:, None, None, None], image[:, :, ::-1], image)


def mixed(
  image: Float[np.ndarray, "B h w c"], mixup: float, cutmix: float, draws: np.random.Generator
) -> tuple[Float[np.ndarray, "B h w c"], Int[np.ndarray, "B"], Float[np.ndarray, "B"]]:
  """Each image mixed with another of the batch: the images, which the others are, and the weights of the first.

  mixup adds all pixels in the weight drawn; CutMix pastes a box of the other, its centre anywhere, cut at the border,
  and the weight is the area that stays.
  """
  count, height, width, _ = image.shape
  partner = draws.permutation(count)
  cut = np.asarray(draws.random(count)) < (0.5 if mixup and cutmix else float(cutmix > 0))
  weights = [np.asarray(draws.beta(alpha or 1.0, alpha or 1.0, count)) for alpha in (mixup, cutmix)]
  ratio: np.ndarray = np.sqrt(1 - weights[1])
  inside = []
  for side in (height, width):
    centre = np.asarray(draws.integers(0, side, count))
    half = (side * ratio).astype(np.int64) // 2
    column = np.arange(side)
    inside.append((column >= (centre - half)[:, None]) & (column < (centre + half)[:, None]))
  box = inside[0][:, :, None] & inside[1][:, None, :]
  weight = np.where(cut[:, None, None], 1 - box, weights[0][:, None, None]).astype(np.float32)
  pixels = weight[..., None]
  return pixels * image + (1 - pixels) * image[partner], partner, weight.mean(axis=(1, 2), dtype=np.float32)


def randaugment(
  image: Float[np.ndarray, "B h w c"], operations: int, magnitude: int, draws: np.random.Generator
) -> Float[np.ndarray, "B h w c"]:
  """`operations` of OPERATIONS on each image (0 to 1, grey or RGB), drawn with repetition, at `magnitude` 0 to 30."""
  from PIL import Image

  count, channels = len(image), image.shape[-1]
  kinds = draws.integers(0, len(OPERATIONS) - (channels == 1), (count, operations))
  signs = draws.choice((-1.0, 1.0), (count, operations))
  pixels = np.rint(image * 255).astype(np.uint8)
  for row in range(count):
    picture = Image.fromarray(pixels[row, ..., 0] if channels == 1 else pixels[row])
    for kind, sign in zip(kinds[row], signs[row], strict=True):
      picture = operate(picture, OPERATIONS[kind], sign * magnitude / STRONGEST)
    pixels[row] = np.asarray(picture).reshape(pixels[row].shape)
  return pixels.astype(np.float32) / np.float32(255)


def operate(picture: Any, name: str, strength: float) -> Any:
  """One operation on one 8-bit `PIL.Image`; `strength` is −1 to 1, its sign the direction where there are two."""
  from PIL import Image, ImageEnhance, ImageOps

  enhancers = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
  }
  if name in enhancers:
    return enhancers[name](picture).enhance(1 + 0.9 * strength)
  if name == "rotate":
    return picture.rotate(30 * strength)
  if name in ("autocontrast", "equalize"):
    return getattr(ImageOps, name)(picture)
  if name == "solarize":
    return ImageOps.solarize(picture, math.ceil(256 - 256 * abs(strength)))
  if name == "posterize":
    return ImageOps.posterize(picture, 8 - round(4 * abs(strength)))
  if name == "identity":
    return picture
  width, height = picture.size
  moves = {
    "shear_x": (1, 0.3 * strength, 0, 0, 1, 0),
    "shear_y": (1, 0, 0, 0.3 * strength, 1, 0),
    "translate_x": (1, 0, 150 / 331 * strength * width, 0, 1, 0),
    "translate_y": (1, 0, 0, 0, 1, 150 / 331 * strength * height),
  }
  return picture.transform(picture.size, Image.Transform.AFFINE, moves[name])
