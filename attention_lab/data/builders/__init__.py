"""Prepares datasets for TFDS: our own builders of what it lacks (BUILDERS), and TFDS's of everything else.

  python -m attention_lab.data.builders --name=wikitext2 --dir=DIR                  downloads, checks, prepares
  python -m attention_lab.data.builders --name=wikitext2 --dir=DIR --from=FOLDER    from files that are here already
  python -m attention_lab.data.builders --name=fashion_mnist --dir=DIR              TFDS's own builder

BUILDERS need no TensorFlow, most of TFDS's do not either (`substitute` says why), and reading never does.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

from attention_lab.config import nearest_hint
from attention_lab.data.builders import published, substitute

BUILDERS = {"babi": "Babi", "wikitext2": "Wikitext2"}  # modules of this package, and the classes in them
_AREAS = ("text", "question_answering", "summarization", "translate")  # of TFDS; found only after an import


def prepare(name: str, directory: str = "", folder: str = "") -> dict[str, int]:
  """Prepares a dataset as array_record in `directory` ("" = TFDS's own); gives the examples by split.

  folder: where the published files lie already: of BUILDERS all of them, at any depth; TFDS's builders download what is
  not in it. "" = they are downloaded. A dataset that is prepared already stays as it is. Raises ValueError for an
  unknown name, and for a file that is missing or has another digest (both named).
  """
  if folder and not Path(folder).expanduser().is_dir():
    raise ValueError(f"--from={folder} is no folder; give one that holds the published files of {name}")
  root = str(Path(directory).expanduser()) if directory else None
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
    with substitute.tensorflow():
      builder.download_and_prepare(download_dir=downloads, download_config=settings)
  except Exception as error:  # TFDS has many kinds, with no base in common
    lacking = "No module named 'tensorflow'" in str(error) or "has no attribute" in str(error)
    fix = "; this builder of TFDS wants TensorFlow once, to prepare: pip install tensorflow-cpu" if lacking else ""
    raise ValueError(f"--name={with_name} cannot be prepared ({' '.join(str(error).split())}){fix}") from error
  return {split: info.num_examples for split, info in builder.info.splits.items()}


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
