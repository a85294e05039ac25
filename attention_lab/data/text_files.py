"""The user's own files of text: UTF-8, with or without its mark; what is not text is refused by its format's name."""

import codecs
from pathlib import Path

FLAG = "--config.data.path"
# The first bytes of formats that are taken for text, and how text is made of them.
_FORMATS = {
  codecs.BOM_UTF16_LE: ("UTF-16", "convert it: iconv -f UTF-16 -t UTF-8"),
  codecs.BOM_UTF16_BE: ("UTF-16", "convert it: iconv -f UTF-16 -t UTF-8"),
  b"\x1f\x8b": ("compressed by gzip", "unpack it: gunzip"),
  b"PK\x03\x04": ("a ZIP archive or a spreadsheet", "unpack it, or export it as CSV"),
  b"PAR1": ("Parquet", "export it as JSONL, CSV or text"),
  b"ARROW1": ("Arrow", "export it as JSONL, CSV or text"),
}


def is_hidden(path: Path) -> bool:
  """Whether a file or folder is the system's or an editor's rather than data: `.ipynb_checkpoints`, `._photo.png`."""
  return path.name.startswith(".")


def decode(file: Path, content: bytes) -> str:
  """The text of a file's content, without a byte order mark.

  Args:
    file: the file, for messages.
    content: its bytes.

  Returns:
    The text, line ends as they are.

  Raises:
    ValueError: the content is not UTF-8; the flag, the file and the fix are named.
  """
  for start, (name, fix) in _FORMATS.items():
    if content.startswith(start):
      raise ValueError(f"{FLAG}: {file} is {name}, not UTF-8 text; {fix}")
  try:
    return content.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise ValueError(f"{FLAG}: {file} is not UTF-8 at byte {error.start}; convert it or leave it out") from None
