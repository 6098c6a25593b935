"""How weights start, where the default of PyTorch lets deep networks begin on a plateau."""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def start_for_relu(module: nn.Module) -> None:
    """Weights normal with variance 2 / n for n inputs of a unit, biases 0: signals keep their size through ReLU layers.

    He et al., "Delving deep into rectifiers", ICCV 2015, equation 10. Of a transposed convolution n counts the inputs
    that meet in one output: input channels times kernel over stride, in each direction.

    Args:
        module: its linear layers, convolutions and transposed convolutions are started anew.
    """
    for layer in module.modules():
        if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            inputs = layer.in_channels * math.prod(layer.kernel_size) / math.prod(layer.stride) / layer.groups
        elif isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            inputs = layer.weight[0].numel()
        else:
            continue
        layer.weight.normal_(std=math.sqrt(2 / inputs))
        if layer.bias is not None:
            layer.bias.zero_()
