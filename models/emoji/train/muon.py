"""The optimizer of the networks' matrices."""

from collections import defaultdict

import torch

# Emulated bfloat16 is slower than float32.
BFLOAT16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class Muon:
    """Momentum whose update is made orthogonal, for weights that are matrices (a convolution's is flattened).

    The update of a matrix is scaled to the size an Adam update has, so both share one learning rate. Matrices of the
    same shape are worked on together. After Keller Jordan's Muon, with the scale of Liu et al. (arXiv 2502.16982).
    """

    MOMENTUM, DECAY = 0.95, 0.01
    COEFFICIENTS = (3.4445, -4.7750, 2.0315)

    def __init__(self, weights):
        self.weights = weights
        self.momentum = [torch.zeros_like(weight) for weight in weights]
        shapes = defaultdict(list)
        for index, weight in enumerate(weights):
            shapes[weight.flatten(1).shape].append(index)
        self.groups = list(shapes.values())

    @torch.no_grad()
    def step(self, rate, pool):
        list(pool.map(lambda group: self.update(group, rate), self.groups))

    @torch.no_grad()
    def update(self, group, rate):
        updates = []
        for index in group:
            gradient, momentum = self.weights[index].grad, self.momentum[index]
            momentum.lerp_(gradient, 1 - self.MOMENTUM)
            updates.append(gradient.lerp(momentum, self.MOMENTUM).flatten(1))
        updates = self.orthogonal(torch.stack(updates))
        scale = 0.2 * max(updates.shape[1:]) ** 0.5
        for index, update in zip(group, updates):
            weight = self.weights[index]
            weight.mul_(1 - rate * self.DECAY).add_(update.view_as(weight), alpha=-rate * scale)

    def orthogonal(self, matrices):
        """Newton-Schulz iteration towards the nearest orthogonal matrices."""
        a, b, c = self.COEFFICIENTS
        tall = matrices.shape[1] > matrices.shape[2]
        x = matrices.mT if tall else matrices
        x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7))
        x = x.bfloat16() if BFLOAT16 else x
        for _ in range(5):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return (x.mT if tall else x).float()
