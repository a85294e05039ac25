"""Prepares a dataset as TFDS array_record: wikitext2, babi, or any that TFDS has a builder of.

python -m attention_lab.data.builders --name=wikitext2 --dir=DIR                  downloads, checks, prepares
python -m attention_lab.data.builders --name=wikitext2 --dir=DIR --from=FOLDER    from files that are here already
python -m experiments.language_modeling --config.data.name=wikitext2 --config.data.dir=DIR    then uses it
"""

from absl import flags

from attention_lab import cli
from attention_lab.data import builders

_NAME = flags.DEFINE_string(
  "name", "", "wikitext2, babi, or a dataset that TFDS has a builder of; sst2 is its glue/sst2."
)
_DIR = flags.DEFINE_string("dir", "", "Folder to prepare in, later --config.data.dir; empty = ~/tensorflow_datasets.")
_FROM = flags.DEFINE_string("from", "", "Folder of the published files, if they are here: nothing is downloaded then.")


def main() -> None:
  if not _NAME.value:
    raise ValueError(f"--name is not given; give {', '.join(builders.BUILDERS)}, or a dataset of TFDS")
  counts = builders.prepare(_NAME.value, _DIR.value, _FROM.value)
  print(f"{_NAME.value}: {', '.join(f'{count:,} {split}' for split, count in counts.items())}")


if __name__ == "__main__":
  cli.run(main)
