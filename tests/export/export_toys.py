"""Made-up images, and prototypes made of them."""

from __future__ import annotations

import torch

from rali_zoo.models.rali import RALINetwork

CLIP_SIDE = 32


def random_images(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(count, 3, H, W) float32 on the grid of 8 bits: noise of different strength on a ramp."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0.2, 0.8, width).expand(count, 3, height, width)
    noise = torch.randn(count, 3, height, width, generator=generator)
    strength = torch.linspace(0, 0.3, count).view(-1, 1, 1, 1)
    return ((ramp + strength * noise).clamp(0, 1) * 255).round() / 255


@torch.no_grad()
def fill_prototypes(module: RALINetwork, images: torch.Tensor) -> RALINetwork:
    """Prototypes at the embeddings of images, so that scores spread."""
    torch.manual_seed(1)
    module.components.copy_(torch.linalg.qr(torch.randn(module.components.T.shape))[0].T)
    embedding = module.embed(module.encode(images))
    module.projection_mean.copy_(embedding.mean(0))
    count = len(images)
    module.vectors[:count] = module.project(embedding)
    module.scores[:count] = torch.linspace(1.2, 4.8, count)
    module.active[:count] = True
    module.ready.fill_(True)
    module.prototype_texts = [[f"noise of strength {i}, “à” <b> & more"] for i in range(count)]
    return module
