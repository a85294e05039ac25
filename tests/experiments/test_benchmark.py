"""The benchmark's binary: a mistake costs one line and exit code 2, and nothing is written."""

import pytest

CASES = {
  "a length that is no number": (["--lengths=abc"], "--lengths=abc"),
  "an unknown flag": (["--length=64"], "length"),
  "a peer that shares no process": (["--huge_pages", "--peers=torch_flex"], "exclude each other"),
}


@pytest.mark.parametrize(("arguments", "message"), CASES.values(), ids=CASES)
def test_a_mistake_costs_one_line_and_writes_nothing(run, tmp_path, arguments, message):
  done = run("benchmark", "--workdir=w", *arguments)
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1
  assert message in done.stderr
  assert not (tmp_path / "w").exists()


def test_a_tiny_benchmark_ends_with_its_report(run, tmp_path):
  arguments = ["--attention=softmax", "--lengths=8", "--mode=forward", "--rounds=3", "--matmul=8", "--explain"]
  done = run("benchmark", "--workdir=w", *arguments)
  assert (done.returncode, done.stderr) == (0, "")
  assert "compiler: " in done.stdout
  assert done.stdout.splitlines()[-1] == "report: w/report.html"
  assert (tmp_path / "w" / "report.html").exists()
