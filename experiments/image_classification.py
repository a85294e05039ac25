r"""Image classification: trains a Vision Transformer.

On a laptop (15 s on 2 CPU cores, accuracy 0.98; the UCI digits that scikit-learn ships):
  python -m experiments.image_classification --attention=softmax --workdir=runs/digits
Fashion-MNIST, made in DIR by `python -m attention_lab.data.builders` (36 minutes on one core, accuracy 0.923):
  python -m experiments.image_classification --config.data.name=fashion_mnist --config.data.dir=DIR \
    --config.model.architecture=resnet --config.model.width=16 --config.data.flip --config.batch=128 \
    --config.steps=6000 --config.optimizer.weight_decay=0.1 --config.evaluate_every=1000 \
    --config.checkpoint.select=best --huge_pages --workdir=runs/fashion
One GPU, any folder of images by class, in a published size:
  python -m experiments.image_classification --config.data.path=photos/ --config.model.size=S/16 \
    --config.model.dtype=bfloat16 --config.batch=256 --config.steps=20000 --workdir=runs/photos
A pod, the same command on every host:
  python -m experiments.image_classification --coordinator=auto --config.data.path=/shared/photos \
    --config.model.size=B/16 --config.batch=4096 --workdir=/shared/runs/photos
"""

from attention_lab import cli
from attention_lab.tasks import image_classification
from attention_lab.workflows import training

CONFIG = cli.define_config(image_classification.Config())


def main() -> None:
  training.run(image_classification, CONFIG.value)


if __name__ == "__main__":
  cli.run(main, CONFIG)
