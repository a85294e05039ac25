"""Published files: where they lie, and what they must be, byte for byte."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class File:
  """One published file."""

  url: str
  size: int  # bytes
  sha256: str
  aliases: tuple[str, ...] = ()  # other names under which it goes round

  @property
  def name(self) -> str:
    return self.url.rpartition("/")[2]


def url_infos(files: Sequence[File]) -> dict[str, Any]:
  """The files as TFDS's download manager wants them: it refuses what has another digest."""
  from tensorflow_datasets.core.download import checksums

  return {file.url: checksums.UrlInfo(size=file.size, checksum=file.sha256, filename=file.name) for file in files}


def find(files: Sequence[File], folder: str) -> dict[File, Path]:
  """Each file's path below `folder`, at any depth, by name and digest.

  Raises ValueError for a file that is missing and for one that has another digest: the file and the expected digest
  are named.
  """
  names = {name for file in files for name in (file.name, *file.aliases)}
  below = sorted(Path(folder).expanduser().rglob("*"))
  there = [path for path in below if path.name in names and path.is_file()]
  return {file: _find(file, there, folder) for file in files}


def sha256(path: Path) -> str:
  """The digest of a file's content."""
  with path.open("rb") as stream:
    return hashlib.file_digest(stream, "sha256").hexdigest()


def _find(file: File, there: Sequence[Path], folder: str) -> Path:
  candidates = [path for path in there if path.name in (file.name, *file.aliases)]
  for path in candidates:
    if path.stat().st_size == file.size and sha256(path) == file.sha256:
      return path.absolute()
  expected = f"its SHA-256 must be {file.sha256}; it is published at {file.url}"
  if not candidates:
    raise ValueError(f"--from={folder} has no {_named(file)}; {expected}")
  raise ValueError(f"--from={folder}: {candidates[0]} has SHA-256 {sha256(candidates[0])}, {expected}")


def _named(file: File) -> str:
  return " or ".join((file.name, *file.aliases))
