"""BCOP layers as the paper describes them, in PyTorch: weights are made anew in every forward pass
from ambient parameters, and autograd goes back through all of it. See paper.py."""
import math

import torch
import torch.nn.functional as F

BJORCK_ITERATIONS = 20


class Orthonormal(torch.nn.Module):
    """`count` matrices (rows x cols, rows >= cols) with orthonormal columns, from ambient ones."""

    def __init__(self, count, rows, cols):
        super().__init__()
        start = torch.stack([torch.nn.init.orthogonal_(torch.empty(rows, cols))
                             for _ in range(count)]) if cols else torch.empty(count, rows, 0)
        # Singular values within some 20% of 1, so that Bjorck has work to do.
        noise = 0.2 / (math.sqrt(rows) + math.sqrt(cols)) * torch.randn_like(start)
        self.ambient = torch.nn.Parameter(start + noise)
        self.register_buffer("power", F.normalize(torch.randn(count, cols, 1), dim=1))
        for _ in range(20):
            self._spectral_norm()

    def _spectral_norm(self):
        with torch.no_grad():
            left = F.normalize(self.ambient @ self.power, dim=1)
            self.power.copy_(F.normalize(self.ambient.transpose(1, 2) @ left, dim=1))
        return left.transpose(1, 2) @ self.ambient @ self.power

    def forward(self):
        w = self.ambient / self._spectral_norm()
        for _ in range(BJORCK_ITERATIONS):
            w = torch.baddbmm(w, w, w.transpose(1, 2) @ w, beta=1.5, alpha=-0.5)
        return w


def pair_kernel(p, q):
    """2 x 2 kernel of the projectors p (along rows) and q (along columns): [2][2][c][c]."""
    pq = p @ q
    return torch.stack([pq, p - pq, q - pq, torch.eye(len(p)) - p - q + pq]).view(2, 2, *p.shape)


def block_convolve(a, b):
    """(a * b)[i,j] = sum over s,t of a[i-s,j-t] b[s,t], for b of 2 x 2 taps: one product in all."""
    k, c = a.shape[0], a.shape[-1]
    taps = (a.reshape(-1, c) @ b.permute(2, 0, 1, 3).reshape(c, -1)).view(k, k, -1, 2, 2, c)
    return sum(F.pad(taps[:, :, :, s, t], (0, 0, 0, 0, t, 1 - t, s, 1 - s))
               for s in (0, 1) for t in (0, 1))


class ConvKernel(torch.nn.Module):
    """A BCOP kernel, [c_out][c_in][k][k]."""

    def __init__(self, c_in, c_out, k):
        super().__init__()
        self.lifts, self.channels = c_in <= c_out, max(c_in, c_out)
        self.head = Orthonormal(1, self.channels, min(c_in, c_out))
        self.bases = Orthonormal(2 * (k - 1), self.channels, self.channels // 2) if k > 1 else None

    def pairs(self):
        """The 2 x 2 kernels whose product, in this order, is the convolution."""
        if self.bases is None:
            return []
        v = self.bases()
        projectors = v @ v.transpose(1, 2)
        return [pair_kernel(projectors[i], projectors[i + 1]) for i in range(0, len(v), 2)]

    def forward(self):
        taps = torch.eye(self.channels).view(1, 1, self.channels, self.channels)
        for number, pair in enumerate(self.pairs()):
            taps = block_convolve(taps, pair) if number else pair
        h = self.head()[0]
        return (taps @ h if self.lifts else h.t() @ taps).permute(2, 3, 0, 1)


class DenseWeight(torch.nn.Module):
    """An orthonormal weight, [out][in]."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.wide = outputs < inputs
        self.matrix = Orthonormal(1, max(inputs, outputs), min(inputs, outputs))

    def forward(self):
        w = self.matrix()[0]
        return w.t() if self.wide else w


class Free(torch.nn.Module):
    """Stands for an orthonormal weight in the plain net: the weight is the parameter."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight.detach().clone().contiguous())

    def forward(self):
        return self.weight


class Layer(torch.nn.Module):
    """What convolution and dense layer share: a weight made anew each step, and a bias."""

    def __init__(self, weight, outputs):
        super().__init__()
        self.weight, self.bias = weight, torch.nn.Parameter(torch.zeros(outputs))


class Conv(Layer):
    """Stride by pixel-unshuffle, then cyclic padding."""

    def __init__(self, c_in, c_out, kernel, stride):
        side = kernel // stride
        super().__init__(ConvKernel(stride * stride * c_in, c_out, side), c_out)
        self.side, self.stride = side, stride

    def forward(self, x):
        x = F.pixel_unshuffle(x, self.stride) if self.stride > 1 else x
        before, after = self.side // 2, (self.side - 1) // 2
        x = F.pad(x, (before, after, before, after), mode="circular")
        return F.conv2d(x, self.weight(), self.bias)


class Dense(Layer):
    def __init__(self, inputs, outputs):
        super().__init__(DenseWeight(inputs, outputs), outputs)

    def forward(self, x):
        return F.linear(x.flatten(1), self.weight(), self.bias)


class MaxMin(torch.nn.Module):
    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], dim=1)


def build(image, layers):
    """The net of paper.NETWORKS: MaxMin after each layer but the last."""
    (channels, height, width), modules = image, []
    for kind, outputs, *options in layers:
        if kind == "conv":
            modules += [Conv(channels, outputs, *options), MaxMin()]
            height, width = height // options[1], width // options[1]
        else:
            modules += [Dense(channels * height * width, outputs), MaxMin()]
            height, width = 1, 1
        channels = outputs
    return torch.nn.Sequential(*modules[:-1])


def hinge(logits, labels, radius):
    """(1/C) sum over j != y of max(0, sqrt(2) radius - z_y + z_j), mean over the batch."""
    own = logits.gather(1, labels[:, None])
    terms = F.relu(math.sqrt(2) * radius - own + logits).scatter(1, labels[:, None], 0.0)
    return terms.sum(1).mean() / logits.shape[1]


def free(net):
    """Makes the weights themselves the parameters: the plain net of that shape."""
    for layer in layers_of(net):
        layer.weight = Free(layer.weight())


def layers_of(net):
    return [module for module in net if isinstance(module, Layer)]


def orthogonalization_step(net):
    """A function that makes all weights, and their parameters' gradients from random ones."""
    weights = [layer.weight for layer in layers_of(net)]
    gradients = [torch.randn_like(weight()).contiguous() for weight in weights]
    parameters = [p for weight in weights for p in weight.parameters()]

    def step():
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward([weight() for weight in weights], gradients)
    return step


def training_step(net, image, radius, batch):
    """A function that trains the net on one fixed random batch."""
    x, labels = torch.rand(batch, *image), torch.randint(10, (batch,))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad(set_to_none=True)
        hinge(net(x), labels, radius).backward()
        optimizer.step()
    return step
