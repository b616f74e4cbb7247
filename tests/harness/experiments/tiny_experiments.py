"""Experiments of seconds: many small trainings on a handful of phantoms."""

from accl_harness.config import make_config
from accl_harness.data.phantom import write_phantom

TINY = {
    "size": 32,
    "width": 4,
    "epochs": 2,
    "backend": "reference",
    "accelerator": "cpu",
    "tensorboard": False,
}


def tiny_set(folder):
    """Four training and three test phantoms."""
    return write_phantom(folder / "set", n_train=4, n_test=3, size=32)


def tiny(data, out, **options):
    """The options of every run of an experiment."""
    return make_config("demo", data=str(data), out=str(out), **{**TINY, **options})
