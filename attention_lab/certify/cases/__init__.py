"""One file per variant: `SPECS`, small specs that show its character, and `oracle`, a float64 loop reference."""

import importlib
import pkgutil
from types import ModuleType

from attention_lab.attention import variants
from attention_lab.attention.base import Attention


def cases() -> dict[str, ModuleType]:
  """The case of each variant, by file name."""
  names = sorted(module.name for module in pkgutil.iter_modules(__path__))
  return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def case_of(variant: Attention) -> ModuleType | None:
  """The case of one of the lab's own variants, None for any other."""
  package, _, name = type(variant).__module__.rpartition(".")
  return cases().get(name) if package == variants.__name__ else None
