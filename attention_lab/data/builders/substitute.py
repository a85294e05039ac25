"""What TFDS's own builders ask of TensorFlow while they prepare a dataset, for a machine without TensorFlow.

Most of them read files, unpack archives and encode PNGs, no more; whoever asks for anything else ends in an error that
names TensorFlow. Made for tensorflow-datasets 4.9; with TensorFlow installed nothing is substituted.
"""

import contextlib
import glob
import importlib.util
import io
import os
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np


@contextlib.contextmanager
def tensorflow() -> Iterator[None]:
  """Meanwhile `tf.io.gfile` is the local file system, and images are encoded by Pillow."""
  from tensorflow_datasets.core.features import image_feature
  from tensorflow_datasets.core.utils import lazy_imports_utils

  if importlib.util.find_spec("tensorflow"):
    yield
    return
  files = {"GFile": open, "exists": os.path.exists, "isdir": os.path.isdir, "glob": glob.glob, "listdir": os.listdir}
  module = types.SimpleNamespace(
    io=types.SimpleNamespace(gfile=types.SimpleNamespace(**files)), compat=types.SimpleNamespace(as_text=os.fsdecode)
  )
  with (
    mock.patch.dict(lazy_imports_utils.tensorflow.__dict__, {"_module": module}),
    mock.patch.object(image_feature._ImageEncoder, "_encode_image", _png),
  ):
    yield


def _png(_encoder: Any, array: np.ndarray) -> bytes:
  """Without loss, whatever the builder asks for."""
  from PIL import Image

  if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
    raise ValueError(
      f"images of {array.dtype} {array.shape} are encoded by TensorFlow only; No module named 'tensorflow'"
    )
  stream = io.BytesIO()
  Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(stream, format="png")
  return stream.getvalue()
