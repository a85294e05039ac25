"""Lists the binaries with a line each: `python -m experiments`."""

import ast
import pathlib
import sys


def binaries() -> dict[str, str]:
  """The first line of each binary's docstring by its name, read without importing it."""
  files = sorted(path for path in pathlib.Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
  docstrings = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in files}
  return {name: text.partition("\n")[0] for name, text in docstrings.items()}


def main() -> int:
  if sys.argv[1:] and sys.argv[1:] not in (["--help"], ["-h"]):
    print(f"error: unexpected argument '{sys.argv[1]}': run a binary as python -m experiments.NAME", file=sys.stderr)
    return 2
  lines = binaries()
  width = max(map(len, lines))
  print("python -m experiments.NAME --help tells all about one of them:\n")
  print("\n".join(f"  {name:{width}}  {line}" for name, line in lines.items()))
  return 0


if __name__ == "__main__":
  sys.exit(main())
