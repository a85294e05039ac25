"""A second run reads the programs that the first one compiled; nothing is kept where that was not wanted or fails."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = '''
"""A binary for this test."""
import json
from attention_lab import cli, compile_cache
def main():
  import jax
  from attention_lab import compiled
  with compile_cache.watched() as traffic:
    step = jax.jit(lambda x: (jax.numpy.sin(x) @ x, 0), donate_argnums=0)
    program = step.lower(jax.ShapeDtypeStruct((64, 64), "float32")).compile()
  least = jax.config.jax_persistent_cache_min_compile_time_secs
  print(json.dumps([traffic.requests, traffic.hits, least, compiled.memory(program)]))
if __name__ == "__main__":
  cli.run(main)
'''
ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@pytest.fixture
def binary(tmp_path):
  """`binary(*words, NAME=value)`: the finished process, of a module if one is named; caches are in `tmp_path`."""
  (tmp_path / "binary.py").write_text(PROGRAM)
  inherited = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}

  def call(*arguments, module="", **environment):
    env = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache"), **environment}
    command = [sys.executable, *(["-m", module] if module else [str(tmp_path / "binary.py")]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=inherited | env, cwd=tmp_path)

  return call


def test_the_second_run_reads_what_the_first_compiled(binary, tmp_path):
  first, second = binary(**ALL), binary(**ALL)
  if "Machine type used for XLA:CPU compilation" in second.stderr:
    pytest.skip("the compiler mistrusts its own programs on this kind of CPU: github.com/jax-ml/jax/issues/38445")
  assert first.stderr == second.stderr == ""
  requests, hits, *program = json.loads(first.stdout)
  assert (requests, hits) == (1, 0)
  assert program[1]["temporaries"] >= 64 * 64 * 4
  assert json.loads(second.stdout) == [1, 1, *program]
  assert list((tmp_path / "cache" / "attention_lab" / "xla").glob("jit_*-cache"))


def test_a_run_says_that_its_step_was_read_and_gives_the_numbers_of_the_first(binary):
  arguments = [f"--config.data.{split}=8" for split in ("train", "validation", "test")]
  arguments += ["--config.steps=2", "--config.batch=8", "--config.model.layers=1"]
  runs = [binary(*arguments, module="experiments.recall", **ALL) for _ in range(2)]
  if "Machine type used for XLA:CPU compilation" in runs[1].stderr:
    pytest.skip("the compiler mistrusts its own programs on this kind of CPU: github.com/jax-ml/jax/issues/38445")
  first, second = (run.stdout.splitlines() for run in runs)
  assert " · compiled in " in first[2]
  assert " · read from the compile cache in " in second[2]
  metrics = [[line for line in lines if line.startswith(("validation:", "test:"))] for lines in (first, second)]
  assert metrics[0] == metrics[1]
  assert len(metrics[0]) == 2


def test_a_folder_of_ones_own_is_used_and_what_compiles_fast_is_not_kept(binary, tmp_path):
  result = binary(f"--compile_cache={tmp_path / 'mine'}")
  requests, hits, least, _ = json.loads(result.stdout)
  assert (requests, hits, least) == (1, 0, 1.0)
  assert (tmp_path / "mine").is_dir()
  assert not list((tmp_path / "mine").glob("*-cache"))
  assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("word, variable", [("--compile_cache=off", "1"), ("--traceback", "0")])
def test_a_flag_or_jaxs_own_variable_switches_it_off(binary, tmp_path, word, variable):
  result = binary(word, JAX_ENABLE_COMPILATION_CACHE=variable, **ALL)
  assert json.loads(result.stdout)[:2] == [0, 0]
  assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_one_line_and_no_error(binary, tmp_path):
  (tmp_path / "file").write_text("")
  result = binary(f"--compile_cache={tmp_path / 'file' / 'inside'}", **ALL)
  assert result.returncode == 0
  assert result.stderr.startswith(f"warning: --compile_cache={tmp_path / 'file' / 'inside'}: Not a directory; ")
  assert result.stderr.count("\n") == 1
  assert json.loads(result.stdout)[:2] == [0, 0]
