"""MONAI's ComponentLocator scans this package too: a class with a MONAI name would shadow it."""

import importlib
import inspect
import pkgutil

import monai.losses
import monai.networks.blocks
import monai.networks.layers
import monai.networks.nets
import pytest
from torch import nn

import monai_ext.networks

MODULES = [name for _, name, _ in pkgutil.iter_modules(monai_ext.networks.__path__)]


@pytest.mark.parametrize("module", MODULES)
def test_no_class_bears_a_name_of_monai(module):
    full = f"{monai_ext.networks.__name__}.{module}"
    own = {
        name
        for name, kind in inspect.getmembers(importlib.import_module(full), inspect.isclass)
        if kind.__module__ == full
    }
    theirs = {
        name
        for package in (monai.networks.blocks, monai.networks.layers, monai.networks.nets, monai.losses)
        for name, kind in inspect.getmembers(package, inspect.isclass)
        if issubclass(kind, nn.Module)
    }
    assert not own & theirs
