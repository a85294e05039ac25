"""The command line of every binary: one line for a mistake, or for Ctrl-C, and a help that lists every field.

A mistake of the user's is a flag that does not parse, a ValueError raised by this project's own code, or a file that
cannot be read or written; anything else keeps its traceback, for it is a bug. `--traceback` shows it in both cases.
"""

import ast
import copy
import dataclasses
import inspect
import logging
import os
import pathlib
import select
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from attention_lab import compile_cache, interrupts, threads
from attention_lab import config as configs

READER_LEFT = 141  # the exit code that shells give a program whose output nobody reads any more
EXIT_CODES = (  # of every binary, as its help has them
  "Exit codes: 0 done · 1 a row, claim or check failed · 2 bad usage · 3 training diverged · 4 no checkpoint can be "
  f"restored · {interrupts.EXIT_CODE} stopped by Ctrl-C · {READER_LEFT} nobody reads the output"
)
# Folders of the code whose ValueErrors are mistakes of the user's.
_OURS = tuple(str(pathlib.Path(__file__).parent.parent / name) for name in ("attention_lab", "experiments"))
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show the traceback of a usage error too.")
_COMPILE_CACHE = flags.DEFINE_string(
  "compile_cache", "", "Folder of compiled programs for later runs; off = none; empty = ~/.cache/attention_lab/xla."
)
_THREADS = flags.DEFINE_integer(
  "threads",
  0,
  "Threads of a run on a CPU, which decide the last digits of its numbers; 0 = 1 in compare, elsewhere one per core.",
  lower_bound=0,
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
  main: Callable[[], int | None],
  config: flags.FlagHolder | None = None,
  overrides: list[str] | None = None,
  default_threads: int = 0,
  described: Callable[[], Mapping[str, Any]] | None = None,
) -> None:
  """Parses the flags, calls `main` and exits.

  Args:
    main: the binary; its result is the exit code (None = 0).
    config: what `define_config` gave.
    overrides: a list that receives every flag `--config.*`, for a binary without a configuration of its own.
    default_threads: the number where --threads gives none; 0 = one for each core.
    described: makes the configurations, by the names of their tasks, whose fields the help lists for `overrides`.

  Raises:
    SystemExit: always, with one of `EXIT_CODES`; of a mistake of the user's the error's own `exit_code`, or 2.
  """
  logging.getLogger("jax").setLevel(logging.WARNING)  # a missing TPU is not news
  if any(argument in ("--help", "-h", "-help", "--helpfull", "--helpshort") for argument in sys.argv[1:]):
    print(_help(sys.argv[0], main, config, described() if described else {}))
    sys.exit(0)
  parse = lambda argv: _parse(argv, config, overrides)
  with interrupts.caught():
    app.run(lambda _: sys.exit(_guarded(main, default_threads)), flags_parser=parse)


def _guarded(main: Callable[[], int | None], default_threads: int) -> int | None:
  try:
    if _THREADS.value or default_threads:
      threads.use(_THREADS.value or default_threads)
    compile_cache.enable(_COMPILE_CACHE.value)
    _join_processes()
    code = main()
    sys.stdout.flush()
    return code
  except BrokenPipeError:
    if not _reader_left():
      raise
    return READER_LEFT
  except (ValueError, OSError) as error:
    message, of_file = str(error), False
    if isinstance(error, OSError) and error.filename is not None:
      message, of_file = f"{error.filename}: {error.strerror}; give a path that can be read and written", True
    if _TRACEBACK.value or interrupts.unwinding() or not (of_file or _is_ours(error)):
      raise
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
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
  if _COORDINATOR.value not in ("", "auto") and not _COORDINATOR.value.rpartition(":")[2].isdecimal():
    raise ValueError(f"--coordinator={_COORDINATOR.value} is neither HOST:PORT of the first process nor auto")
  if _COORDINATOR.value:
    import jax

    known = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value) if _COORDINATOR.value != "auto" else ()
    jax.distributed.initialize(*known)


def _is_ours(error: Exception) -> bool:
  """True if the error was raised by a line of this project."""
  return traceback.extract_tb(error.__traceback__)[-1].filename.startswith(_OURS)


def _parse(argv: Sequence[str], config: flags.FlagHolder | None, overrides: list[str] | None) -> list[str]:
  try:
    if config is not None:
      argv = [_longhand(argument) for argument in argv]
      _check_fields(argv, config)
    if overrides is not None:
      overrides += [argument for argument in argv if argument.startswith("--config.")]
      argv = [argument for argument in argv if not argument.startswith("--config.")]
    rest = flags.FLAGS(list(argv))
  except flags.UnrecognizedFlagError as error:
    _refuse(str(error) if "Did you mean" in str(error) else f"{error} (--help lists all)")
  except flags.Error as error:
    _refuse(_ill_typed(argv, config) or str(error))
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


def _ill_typed(argv: Sequence[str], config: flags.FlagHolder | None) -> str:
  """The message on the first field of the configuration whose value is of another type, "" for none."""
  if config is None:
    return ""
  try:
    for argument in argv[1:]:
      if argument.startswith("--config.") and "=" in argument:
        configs.override(copy.deepcopy(_default(config)), argument)
  except ValueError as error:
    return str(error)
  return ""


def _default(config: flags.FlagHolder) -> Any:
  return flags.FLAGS[config.name].default


def _help(program: str, main: Callable, config: flags.FlagHolder | None, described: Mapping[str, Any]) -> str:
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
    lines += _columns(_described("config", _default(config)))
  if described:
    lines += ["", "Fields of all tasks, whose defaults may be others in one (its own --help has them), then of some:"]
    lines += _columns(_fields(described))
  return "\n".join([*lines, "", EXIT_CODES])


def _columns(rows: Iterable[tuple[str, str, str]]) -> list[str]:
  """A line for each field, its comments under one another."""
  texts = [(f"  --{name}={default}", comment) for name, default, comment in rows]
  width = max(len(text) for text, _ in texts)
  return [f"{text:{width}}  {comment}" for text, comment in texts]


def _fields(described: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  """(name, default, comment) of the fields of all configurations, then of those that only some tasks have."""
  shared = list(_described("config", configs.Config()))
  single: dict[str, tuple[str, str, list[str]]] = {}
  for task, config in described.items():
    for name, default, comment in _described("config", config):
      if name not in {name for name, *_ in shared}:
        single.setdefault(name, (default, comment, []))[2].append(task)
  return shared + [
    (name, default, f"{', '.join(tasks)}: {comment}") for name, (default, comment, tasks) in single.items()
  ]


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
