"""RandAugment: n operations on each image, each drawn from a list, all of one magnitude.

The operations are the published fourteen (identity, autocontrast, equalize, rotate, solarize, color, posterize,
contrast, brightness, sharpness, shear and translate in x and y), on 8-bit images by Pillow; grey images have no color,
and draw from the other thirteen. The strongest magnitude, 30, is AutoAugment's: rotation by 30°, shear by 0.3,
translation by 150/331 of the side, contrast and its like by a factor of 1 ± 0.9, 4 bits kept, all inverted. The
direction is drawn where there are two; what moves in from outside is black.

Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space", §3; ranges:
Cubuk et al. 2019, "AutoAugment", table 6.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

STRONGEST = 30
OPERATIONS = (
  "identity autocontrast equalize rotate solarize posterize contrast brightness sharpness shear_x shear_y translate_x "
  "translate_y color"
).split()  # color last: grey images draw from those before it


def apply(
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
    return ImageOps.solarize(picture, 256 - 256 * abs(strength))
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
