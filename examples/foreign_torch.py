"""How a plain PyTorch module holds up when its inputs fail, beside a method of this library."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import kintsugi as kg


class Late(nn.Module):
    """A network of one's own: an image and the ids of a sentence in, ten logits out. It knows nothing of holes."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU())
        self.read = nn.EmbeddingBag(257 * 257, 64)
        self.say = nn.Linear(128, 10)

    def forward(self, image: Tensor, clue: Tensor) -> Tensor:
        pairs = clue[:, :-1] * 257 + clue[:, 1:]
        return self.say(torch.cat([self.look(image), self.read(pairs)], 1))


def main() -> None:
    """Train it with a loop of one's own, wrap it, print the table."""
    torch.manual_seed(0)
    train, val, test = kg.datasets.load("avdigits").split()
    rows = train.batch(torch.arange(len(train)))
    net = Late()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(15):
        for part in torch.randperm(len(rows)).split(100):
            loss = nn.functional.cross_entropy(
                net(rows.inputs["image"][part], rows.inputs["clue"][part]), rows.target[part]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    schema = kg.Schema((train.schema["image"], train.schema["clue"]), train.schema.task)  # it hears nothing
    late = kg.wrap(net, schema, inputs="positional", reference=train)
    fusion = kg.Classifier("mean_fusion", epochs=3, seed=0).fit(train, val)
    results = kg.evaluate({"late": late, "mean_fusion": fusion}, test, "subsets", resamples=200)
    print(results.leaderboard()[["method", "clean", "mean", "worst", "worst_in"]].to_string(index=False))


if __name__ == "__main__":
    main()
