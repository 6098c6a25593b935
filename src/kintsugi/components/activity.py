"""Models of human activity: what sensors on a body tell together."""

from __future__ import annotations

import torch

from kintsugi.core.encoder import UserEncoder
from kintsugi.core.features import Features, Fused
from kintsugi.core.methods import COMPONENTS
from kintsugi.core.model import Model
from kintsugi.core.schema import Schema, StreamSpec
from kintsugi.layers.channels import ActivityNetwork, ChannelEncoder, ChannelWindow, channel_names


@COMPONENTS.register("activity_model")
class ActivityModel(Model):
    """Centaur's network of convolutions and attention over the channels of all series and vectors in one window.

    Everything else, and what a user's encoder is given for, joins its features by an encoder of its kind.

    Args:
        schema: with modalities of any kind; those in the window have a fixed size.
        dim: width of the encoders beside the window.
        filters, attention: of :class:`~kintsugi.layers.channels.ActivityNetwork`, its ``filters`` and its ``axis``.

    Raises:
        ConfigError: no series, vector or number of a table; one of open size; an unknown axis of attention.
    """

    def __init__(self, schema: Schema, dim: int = 32, filters: int = 64, attention: str = "time") -> None:
        super().__init__(schema, dim, fused=None)
        own = [m for m, encoder in self.encoders.items() if isinstance(encoder, UserEncoder)]
        self.channels = channel_names(schema, own)
        window = ChannelWindow(schema)
        for name in self.channels:
            self.encoders[name] = ChannelEncoder(window.steps)
        channels = sum(window.sizes[name][1] for name in self.channels)
        self.network = ActivityNetwork(channels, window.steps, filters, attention) if channels else None
        self.others = [name for name in schema.names if name not in self.channels]
        features = 0 if self.network is None else self.network.features
        self.task_head = schema.task.head(StreamSpec(features + dim * len(self.others)))

    def fuse(self, features: Features) -> Fused:
        parts = [features.streams[name].pooled() for name in self.others]
        if self.network is not None:
            window = torch.cat([features.streams[name].tokens for name in self.channels], 2).transpose(1, 2)
            parts.insert(0, self.network(window))
        return Fused.vector(torch.cat(parts, 1))
