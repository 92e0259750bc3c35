"""Put on PYTHONPATH of a search under test: every process writes each epoch it trains to a log.

The log (FAULT_EPOCH_LOG) is how the tests know what was trained twice. Nothing in the package
knows of it: the loop is wrapped when it is imported.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import time

_WATCHED = "fer_ray.training.loop"


class _Loader(importlib.abc.Loader):
    def __init__(self, inner):
        self.inner = inner

    def create_module(self, spec):
        return self.inner.create_module(spec)

    def exec_module(self, module):
        self.inner.exec_module(module)
        _wrap(module.Training)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != _WATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def _wrap(training):
    inner = training._one_epoch
    pause_s = float(os.environ.get("FAULT_EPOCH_PAUSE_S", "0"))

    def one_epoch(self, epoch):
        result = inner(self, epoch)
        time.sleep(pause_s)
        line = f"{self.config.train.seed} {epoch} {os.getpid()} {time.time():.3f}\n"
        descriptor = os.open(os.environ["FAULT_EPOCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)
        return result

    training._one_epoch = one_epoch


if "FAULT_EPOCH_LOG" in os.environ:
    sys.meta_path.insert(0, _Finder())
