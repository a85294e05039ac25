"""Training images drawn anew at each step: crop, flip, RandAugment, then mixup or CutMix, all from (seed, step).

Each kind of draw has a generator of its own, so that switching one on leaves the draws of the others as they were. With
mixup or CutMix a batch also has

  label_b int32 [B]     the label of the image that was mixed in
  mix float32 [B]       the weight of `label`; that of `label_b` is 1 − mix

and the loss of an example is mix · loss(label) + (1 − mix) · loss(label_b). Both weights are drawn for each example.
Crop with padding and flip: He et al. 2016, "Deep Residual Learning", §4.2. RandAugment: Cubuk et al. 2020. mixup: Zhang
et al. 2018. CutMix: Yun et al. 2019; with mixup too, each example takes one of them with probability ½.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from attention_lab.data import randaugment
from attention_lab.data.dataset import Split

_CROP, _FLIP, _RANDAUGMENT, _MIX = range(1, 5)


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """What is drawn; the fields are flags `--config.data.NAME`. Raises ValueError for values out of range."""

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
    if not 0 <= self.magnitude <= randaugment.STRONGEST:
      strongest = randaugment.STRONGEST
      raise ValueError(f"--config.data.magnitude={self.magnitude} is out of range; give 0 to {strongest}")

  def __bool__(self) -> bool:
    """Whether anything is drawn at all."""
    return bool(self.crop or self.flip or self.randaugment or self.mixup or self.cutmix)


class Augmented:
  """A split of images (float32 [B, h, w, c] in 0 to 1, with labels) whose training batches are drawn by `settings`.

  Read by index alone, as evaluation does, the images are as they were.
  """

  split: Split  # what is augmented
  describe: Callable[[int], str]  # an example as a reader would want it, where the split has it

  def __init__(self, split: Split, settings: Augmentation) -> None:
    """Raises ValueError for a crop that may miss the image, and for RandAugment on neither grey nor RGB images."""
    self.split, self._settings = split, settings
    *sides, channels = split[np.arange(1)]["image"].shape[1:]
    if settings.crop >= min(sides):
      raise ValueError(f"--config.data.crop={settings.crop} may miss the image; give less than {min(sides)}")
    if settings.randaugment and channels not in (1, 3):
      given = f"--config.data.randaugment={settings.randaugment} on images of {channels} channels"
      raise ValueError(f"{given} is not defined; give 0, or grey or RGB images")
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
      image = randaugment.apply(image, settings.randaugment, settings.magnitude, draws(_RANDAUGMENT))
    if settings.mixup or settings.cutmix:
      image, partner, mix = mixed(image, settings.mixup, settings.cutmix, draws(_MIX))
      batch |= {"label_b": batch["label"][partner], "mix": mix}
    return batch | {"image": image}


def crop(image: Float[np.ndarray, "B h w c"], padding: int, draws: np.random.Generator) -> Float[np.ndarray, "B h w c"]:
  """Each image moved by up to `padding` pixels either way, black where it was not."""
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
  cut = draws.random(count) < (0.5 if mixup and cutmix else float(cutmix > 0))
  weights = [draws.beta(alpha or 1.0, alpha or 1.0, count) for alpha in (mixup, cutmix)]
  ratio = np.sqrt(1 - weights[1])
  inside = []
  for side in (height, width):
    centre, half = draws.integers(0, side, count), (side * ratio).astype(np.int64) // 2
    places = np.arange(side)
    inside.append((places >= (centre - half)[:, None]) & (places < (centre + half)[:, None]))
  box = inside[0][:, :, None] & inside[1][:, None, :]
  weight = np.where(cut[:, None, None], 1 - box, weights[0][:, None, None]).astype(np.float32)
  pixels = weight[..., None]
  return pixels * image + (1 - pixels) * image[partner], partner, weight.mean(axis=(1, 2), dtype=np.float32)
