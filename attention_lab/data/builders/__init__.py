"""Prepares datasets for TFDS: our own builders of what it lacks (BUILDERS), and TFDS's of everything else.

  python -m attention_lab.data.builders --name=wikitext2 --dir=DIR                  downloads, checks, prepares
  python -m attention_lab.data.builders --name=wikitext2 --dir=DIR --from=FOLDER    from files that are here already
  python -m attention_lab.data.builders --name=fashion_mnist --dir=DIR              TFDS's own builder

BUILDERS need no TensorFlow, most of TFDS's do not either (see `substitute_tensorflow`), and reading never does.
"""

import contextlib
import glob
import importlib.util
import io
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from attention_lab.config import nearest_hint
from attention_lab.data.builders import published
from attention_lab.data.labelled_sources import ALIASES

BUILDERS = {"babi": "Babi", "wikitext2": "Wikitext2"}  # modules of this package, and the classes in them
_AREAS = ("text", "question_answering", "summarization", "translate")  # of TFDS; found only after an import


def prepare(name: str, directory: str = "", folder: str = "") -> dict[str, int]:
  """Prepares a dataset as array_record; one that is prepared already stays as it is.

  Args:
    name: one of BUILDERS, or a dataset that TFDS has a builder of; sst2 is its glue/sst2.
    directory: the folder to prepare in; "" = TFDS's own.
    folder: where the published files lie already, for BUILDERS at any depth; nothing is downloaded then. "" = they are
      downloaded.

  Returns:
    The number of examples by split.

  Raises:
    ValueError: an unknown name, or a file that is missing or has another digest (both named).
  """
  if folder and not Path(folder).expanduser().is_dir():
    raise ValueError(f"--from={folder} is no folder; give one that holds the published files of {name}")
  root, name = str(Path(directory).expanduser()) if directory else None, ALIASES.get(name, name)
  if name not in BUILDERS:
    return _prepare(_official(name, root), folder)
  module = importlib.import_module(f"{__name__}.{name}")
  builder = getattr(module, BUILDERS[name])(data_dir=root, file_format="array_record")
  if not folder:
    return _prepare(builder, "")
  paths = published.find(module.FILES, folder)
  with tempfile.TemporaryDirectory() as gathered:
    for file, path in paths.items():
      (Path(gathered) / file.name).symlink_to(path)
    return _prepare(builder, gathered)


def _prepare(builder: Any, folder: str) -> dict[str, int]:
  import tensorflow_datasets as tfds

  with_name = builder.info.full_name.rpartition("/")[0]
  downloads = builder.data_dir_root / "downloads" / with_name  # one folder each: TFDS confuses files of one name
  settings = tfds.download.DownloadConfig(manual_dir=Path(folder).expanduser() if folder else None)
  try:
    with substitute_tensorflow(), _without_downloads(folder) if folder else contextlib.nullcontext():
      builder.download_and_prepare(download_dir=downloads, download_config=settings)
  except Exception as error:  # TFDS has many kinds, with no base in common
    lacking = "No module named 'tensorflow'" in str(error) or "has no attribute" in str(error)
    fix = "; this builder of TFDS wants TensorFlow once, to prepare: pip install tensorflow-cpu" if lacking else ""
    raise ValueError(f"--name={with_name} cannot be prepared ({' '.join(str(error).split())}){fix}") from error
  return {split: info.num_examples for split, info in builder.info.splits.items()}


@contextlib.contextmanager
def _without_downloads(folder: str) -> Iterator[None]:
  """A context in which TFDS refuses to download what is neither in a folder nor downloaded already, naming the file."""
  from tensorflow_datasets.core.download import download_manager

  def refuse(manager: Any, resource: Any) -> None:
    known = manager._url_infos.get(resource.url)
    name = (known and known.filename) or resource.url.rpartition("/")[2]
    digest = f"; its SHA-256 must be {known.checksum}" if known else ""
    raise ValueError(f"--from={folder} has no {name}{digest}; it is published at {resource.url}")

  with mock.patch.object(download_manager.DownloadManager, "_download", refuse):
    yield


def _official(name: str, root: str | None) -> Any:
  """TFDS's builder, with what its preparing imports and does not require (importlib_resources)."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import registered

  if not importlib.util.find_spec("importlib_resources"):
    importlib.import_module("importlib.resources.abc")
    sys.modules["importlib_resources"] = importlib.import_module("importlib.resources")
  stem = name.partition("/")[0].partition(":")[0]
  for area in _AREAS:
    if stem.isidentifier() and importlib.util.find_spec(f"tensorflow_datasets.{area}.{stem}"):
      importlib.import_module(f"tensorflow_datasets.{area}.{stem}")
  try:
    return tfds.builder(name, data_dir=root, file_format="array_record")
  except registered.DatasetNotFoundError:
    known = [*BUILDERS, *registered.list_imported_builders()]
    ours = ", ".join(BUILDERS)
    raise ValueError(f"--name={name} is no dataset{nearest_hint(stem, known)}; ours are {ours}, else TFDS's") from None
  except Exception as error:  # TFDS has many kinds, with no base in common
    raise ValueError(f"--name={name}: TFDS cannot make its builder ({' '.join(str(error).split())})") from error


@contextlib.contextmanager
def substitute_tensorflow() -> Iterator[None]:
  """A context in which TFDS's builders find the little of TensorFlow that preparing a dataset takes.

  Most of them read files, unpack archives and encode PNGs, no more: `tf.io.gfile` is the local file system, and images
  are encoded by Pillow. A builder that asks for anything else ends in an error that names TensorFlow. Made for
  tensorflow-datasets 4.9; with TensorFlow installed nothing is substituted.
  """
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
  """The PNG of an image, without loss, in place of TFDS's encoder."""
  from PIL import Image

  if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
    raise ValueError(
      f"images of {array.dtype} {array.shape} are encoded by TensorFlow only; No module named 'tensorflow'"
    )
  stream = io.BytesIO()
  Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(stream, format="png")
  return stream.getvalue()
