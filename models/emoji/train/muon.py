"""The optimizer of the networks' matrices."""

from collections import defaultdict

import torch


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
    def step(self, rate):
        for group in self.groups:
            weights = [self.weights[index] for index in group]
            momentum = [self.momentum[index] for index in group]
            gradients = [weight.grad for weight in weights]
            torch._foreach_lerp_(momentum, gradients, 1 - self.MOMENTUM)
            torch._foreach_lerp_(gradients, momentum, self.MOMENTUM)
            updates = self.orthogonal(torch.stack([gradient.flatten(1) for gradient in gradients]))
            scale = 0.2 * max(updates.shape[1:]) ** 0.5
            torch._foreach_mul_(weights, 1 - rate * self.DECAY)
            shaped = [update.view(weight.shape) for update, weight in zip(updates, weights)]
            torch._foreach_add_(weights, shaped, alpha=-rate * scale)

    def orthogonal(self, matrices):
        """Newton-Schulz iteration towards the nearest orthogonal matrices."""
        a, b, c = self.COEFFICIENTS
        tall = matrices.shape[1] > matrices.shape[2]
        x = matrices.mT if tall else matrices
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        x = x.bfloat16() if x.is_cuda else x
        for _ in range(5):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return (x.mT if tall else x).float().contiguous()
