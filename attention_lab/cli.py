"""The command line of every binary: one line for a mistake, exit code 2, and a help that lists every field.

A mistake of the user's is a flag that does not parse, or a ValueError raised by this project's own code; anything else
keeps its traceback, for it is a bug. `--traceback` shows it in both cases.
"""

import ast
import dataclasses
import inspect
import logging
import os
import pathlib
import select
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from attention_lab import compile_cache
from attention_lab import config as configs

READER_LEFT = 141  # the exit code that shells give a program whose output nobody reads any more
# Folders of the code whose ValueErrors are mistakes of the user's.
_OURS = tuple(str(pathlib.Path(__file__).parent.parent / name) for name in ("attention_lab", "experiments"))
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show the traceback of a usage error too.")
_COMPILE_CACHE = flags.DEFINE_string(
  "compile_cache", "", "Folder of compiled programs for later runs; off = none; empty = ~/.cache/attention_lab/xla."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", "", "For several processes: HOST:PORT of the first, or auto on SLURM, TPU pods and Kubernetes."
)
_PROCESSES = flags.DEFINE_integer("processes", 1, "Processes in all, with --coordinator=HOST:PORT.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", 0, "Number of this process, from 0.", lower_bound=0)


def define_config(config: configs.Config) -> flags.FlagHolder:
  """Defines `--config.*` for every field, and `--attention` as a shorthand for `--config.model.attention`.

  The library reads the command line here already, so unknown fields are kept from it and refused by `run`.

  Args:
    config: the defaults.

  Returns:
    The holder of the configuration that the command line makes of them.
  """
  fields = configs.flatten(config)
  arguments = [argument for argument in map(_longhand, sys.argv) if not _unknown(argument, fields)]
  return config_flags.DEFINE_config_dataclass("config", config, sys_argv=arguments)


def run(
  main: Callable[[], int | None], config: flags.FlagHolder | None = None, overrides: list[str] | None = None
) -> None:
  """Parses the flags, calls `main` and exits.

  Args:
    main: the binary; its result is the exit code (None = 0).
    config: what `define_config` gave.
    overrides: a list that receives every flag `--config.*`, for a binary without a configuration of its own.

  Raises:
    SystemExit: always; code 2 for a mistake of the user's, or the error's own `exit_code`.
  """
  logging.getLogger("jax").setLevel(logging.WARNING)  # a missing TPU is not news
  app.run(lambda _: sys.exit(_guarded(main)), flags_parser=lambda argv: _parse(argv, main, config, overrides))


def _guarded(main: Callable[[], int | None]) -> int | None:
  try:
    compile_cache.enable(_COMPILE_CACHE.value)
    _join_processes()
    code = main()
    sys.stdout.flush()
    return code
  except BrokenPipeError:
    if not _reader_left():
      raise
    return READER_LEFT
  except (ValueError, FileNotFoundError) as error:
    if _TRACEBACK.value or not _is_ours(error):
      raise
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return getattr(error, "exit_code", 2)


def _reader_left() -> bool:
  """True if nobody reads what is printed any more, as behind `| head`; what is left of it is then thrown away."""
  output = sys.stdout.fileno()
  poll = select.poll()
  poll.register(output, 0)
  left = any(event & select.POLLERR for _, event in poll.poll(0))
  if left:
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
  return left


def _join_processes() -> None:
  """Connects to the other processes before JAX starts, if there are any."""
  if _PROCESS.value >= _PROCESSES.value:
    raise ValueError(f"--process={_PROCESS.value} must be less than --processes={_PROCESSES.value}")
  if not _COORDINATOR.value and _PROCESSES.value > 1:
    raise ValueError(f"--processes={_PROCESSES.value} needs --coordinator=HOST:PORT of the first process")
  if _COORDINATOR.value:
    import jax

    known = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value) if _COORDINATOR.value != "auto" else ()
    jax.distributed.initialize(*known)


def _is_ours(error: Exception) -> bool:
  """True if the error was raised by a line of this project."""
  return traceback.extract_tb(error.__traceback__)[-1].filename.startswith(_OURS)


def _parse(
  argv: Sequence[str], main: Callable, config: flags.FlagHolder | None, overrides: list[str] | None
) -> list[str]:
  if any(argument in ("--help", "-h", "-help", "--helpfull", "--helpshort") for argument in argv[1:]):
    print(_help(argv[0], main, config))
    sys.exit(0)
  try:
    if config is not None:
      argv = [_longhand(argument) for argument in argv]
      _check_fields(argv, config)
    if overrides is not None:
      overrides += [argument for argument in argv if argument.startswith("--config.")]
      argv = [argument for argument in argv if not argument.startswith("--config.")]
    rest = flags.FLAGS(list(argv))
  except flags.Error as error:
    _refuse(str(error))
  if len(rest) > 1:
    _refuse(f"unexpected argument '{rest[1]}': flags are written --name=value")
  return rest


def _refuse(message: str) -> None:
  print(f"error: {' '.join(message.split())}", file=sys.stderr)
  sys.exit(2)


def _longhand(argument: str) -> str:
  name, mark, value = argument.partition("=")
  return f"--config.model.attention{mark}{value}" if name == "--attention" else argument


def _unknown(argument: str, fields: Iterable[str]) -> str | None:
  """The name in an argument `--config.NAME=…` if there is no such field."""
  name = argument.partition("=")[0].lstrip("-")
  return (
    name if name.startswith("config") and name.replace(".no", ".", 1) not in fields and name not in fields else None
  )


def _check_fields(argv: Sequence[str], config: flags.FlagHolder) -> None:
  """Names the nearest field for one that does not exist; absl would end in a traceback."""
  fields = configs.flatten(_default(config))
  for name in filter(None, (_unknown(argument, fields) for argument in argv[1:])):
    inside = [f"--{field}" for field in fields if field.startswith(f"{name}.")]
    if inside:
      _refuse(f"--{name} is a group of fields: set one of {', '.join(inside)}")
    _refuse(f"unknown flag '--{name}'{configs.nearest_hint(name, fields) or ' (--help lists all)'}")


def _default(config: flags.FlagHolder) -> Any:
  return flags.FLAGS[config.name].default


def _help(program: str, main: Callable, config: flags.FlagHolder | None) -> str:
  module = sys.modules[main.__module__]
  lines = [(module.__doc__ or program).strip(), "", "Flags:"]
  listed = {flag.name: flag for flag in flags.FLAGS.get_flags_for_module(module.__name__)}
  listed |= {flag.name: flag for flag in flags.FLAGS.get_flags_for_module("__main__")}
  shared = sorted(name for name in flags.FLAGS.flags_by_module_dict() if name.startswith("attention_lab.workflows."))
  for name in (*shared, __name__):
    listed |= {flag.name: flag for flag in flags.FLAGS.get_flags_for_module(name)}
  for flag in listed.values():
    if flag.name != "config":
      lines.append(f"  --{flag.name}={flag.default_unparsed!r}  {flag.help}")
  if config is not None:
    lines.append("  --attention=…  shorthand for --config.model.attention")
    rows = list(_described("config", _default(config)))
    width = max(len(name) + len(default) for name, default, _ in rows) + 1
    lines += [
      f"  --{name}={default}{' ' * (width - len(name) - len(default))} {comment}" for name, default, comment in rows
    ]
  return "\n".join(lines)


def _described(prefix: str, config: Any) -> Any:
  """(name, default, comment) of every field, depth first."""
  comments = _comments(type(config))
  for field in dataclasses.fields(config):
    value, name = getattr(config, field.name), f"{prefix}.{field.name}"
    if dataclasses.is_dataclass(value):
      yield from _described(name, value)
    else:
      yield name, repr(value), comments.get(field.name, "")


def _comments(kind: type) -> dict[str, str]:
  """The comment behind each field of a dataclass, those of its bases included."""
  comments: dict[str, str] = {}
  for base in reversed(kind.__mro__[:-1]):
    source = inspect.getsource(base)
    lines = source.splitlines()
    for node in ast.walk(ast.parse(inspect.cleandoc(source))):
      if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        _, mark, comment = lines[(node.end_lineno or node.lineno) - 1].partition("  # ")
        comments |= {node.target.id: comment} if mark else {}
  return comments
