"""Every binary answers a mistake with one line and exit code 2, and `--help` with every field."""

import os
import subprocess
import sys
import textwrap

import pytest

from attention_lab import cli

BINARY = '''
"""A binary for this test."""
import dataclasses
from attention_lab import cli, config
CONFIG = cli.define_config(config.Config())
def main():
  if CONFIG.value.steps == 13:
    config.override(CONFIG.value, "--config.no_such=1")
  if CONFIG.value.steps == 14:
    raise KeyError("a bug")
  if CONFIG.value.steps == 15:
    raise BrokenPipeError("a worker is gone")
  print("ran", CONFIG.value.model.attention, CONFIG.value.model.shared_layers)
if __name__ == "__main__":
  cli.run(main, CONFIG)
'''


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
  path = tmp_path_factory.mktemp("cli") / "binary.py"
  path.write_text(textwrap.dedent(BINARY))

  def run(*arguments, stdout=subprocess.PIPE):
    command = [sys.executable, str(path), *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)

  return run


def test_attention_is_shorthand_for_the_models_field(binary):
  assert binary("--attention=local(window=3)|softmax").stdout == "ran local(window=3)|softmax False\n"


def test_a_boolean_field_can_be_set(binary):
  assert binary("--config.model.shared_layers=true").stdout == "ran softmax True\n"


@pytest.mark.parametrize(
  ("word", "message"),
  [
    ("--config.model.widht=3", "did you mean 'config.model.width'"),
    ("--config.model=3", "is a group of fields"),
    ("--config.steps=many", "--config.steps=many"),
    ("--no_such_flag=1", "no_such_flag"),
    ("stray", "unexpected argument 'stray'"),
    ("--config.steps=13", "unknown flag --config.no_such=1"),
  ],
)
def test_a_mistake_is_one_line_and_exit_code_2(binary, word, message):
  result = binary(word)
  assert result.returncode == 2
  assert message in result.stderr
  assert result.stderr.count("\n") == 1
  assert result.stdout == ""


def test_a_bug_keeps_its_traceback(binary):
  result = binary("--config.steps=14")
  assert result.returncode not in (0, 2)
  assert "Traceback" in result.stderr


def test_output_that_nobody_reads_any_more_ends_the_program_without_a_word(binary):
  reader, writer = os.pipe()
  os.close(reader)
  result = binary(stdout=writer)
  os.close(writer)
  assert (result.returncode, result.stderr) == (cli.READER_LEFT, "")


def test_another_broken_pipe_keeps_its_traceback(binary):
  assert "a worker is gone" in binary("--config.steps=15").stderr


def test_help_lists_every_field_with_its_default_and_comment(binary):
  result = binary("--help")
  assert result.returncode == 0
  assert "--config.model.width=64" in result.stdout
  assert "D, the model width" in result.stdout
  assert "--config.optimizer.clip=1.0" in result.stdout
