"""The model: a small Llama (RMSNorm, RoPE on neighbouring pairs, grouped-query attention, SwiGLU).

Two things are done by hand because they decide the speed on two cores: matrix products run in
bfloat16 (oneDNN is four times as fast there as in float32), and the loss over the vocabulary is
computed chunk by chunk together with its gradient, so that the logits never leave the cache.
"""
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Shape:
    vocab: int = 4096
    dim: int = 256      # multiples of 256 for every row, so that k-quants fit as well as Q8_0
    ffn: int = 768
    layers: int = 5
    heads: int = 8
    kv_heads: int = 4
    context: int = 512
    eps: float = 1e-5
    theta: float = 10000.0

    @property
    def head_dim(self):
        return self.dim // self.heads


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rope_table(shape, length):
    freq = shape.theta ** (-torch.arange(0, shape.head_dim, 2).double() / shape.head_dim)
    angle = torch.arange(length).double()[:, None] * freq
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    """x: (batch, time, heads, head_dim); pair (2i, 2i+1) turns by the angle of frequency i."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        kv = s.kv_heads * s.head_dim
        self.attn_norm = RMSNorm(s.dim, s.eps)
        self.attn_q = nn.Linear(s.dim, s.dim, bias=False)
        self.attn_k = nn.Linear(s.dim, kv, bias=False)
        self.attn_v = nn.Linear(s.dim, kv, bias=False)
        self.attn_output = nn.Linear(s.dim, s.dim, bias=False)
        self.ffn_norm = RMSNorm(s.dim, s.eps)
        self.ffn_gate = nn.Linear(s.dim, s.ffn, bias=False)
        self.ffn_up = nn.Linear(s.dim, s.ffn, bias=False)
        self.ffn_down = nn.Linear(s.ffn, s.dim, bias=False)

    def attend(self, x, cos, sin, mask, low):
        s = self.s
        b, t, _ = x.shape
        group = s.heads // s.kv_heads
        q = rotate(linear(x, self.attn_q, low).view(b, t, s.heads, -1), cos, sin)
        k = rotate(linear(x, self.attn_k, low).view(b, t, s.kv_heads, -1), cos, sin)
        v = linear(x, self.attn_v, low).view(b, t, s.kv_heads, -1)
        q = (q / math.sqrt(s.head_dim)).to(low).transpose(1, 2)
        # Query heads of one group share a key head: fold the group into the rows of one product.
        q = q.reshape(b * s.kv_heads, group * t, s.head_dim)
        k = k.to(low).transpose(1, 2).reshape(b * s.kv_heads, t, s.head_dim)
        v = v.to(low).transpose(1, 2).reshape(b * s.kv_heads, t, s.head_dim)
        score = torch.bmm(q, k.transpose(1, 2)).view(b, s.heads, t, t) + mask.to(low)
        p = torch.softmax(score, -1).view(b * s.kv_heads, group * t, t)
        y = torch.bmm(p, v).view(b, s.heads, t, s.head_dim).transpose(1, 2).reshape(b, t, s.dim)
        return linear(y, self.attn_output, low)

    def feed(self, x, low):
        return linear(F.silu(linear(x, self.ffn_gate, low)) * linear(x, self.ffn_up, low),
                      self.ffn_down, low)


def linear(x, layer, low):
    return F.linear(x.to(low), layer.weight.to(low))


class Storyteller(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.dim)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = RMSNorm(shape.dim, shape.eps)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                deep = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * shape.layers) if deep else 1))

    def forward(self, ids, low=torch.float32, drop=0.0):
        """Hidden states before the output matrix; `low` is the type of the matrix products.

        Dropout uses one mask for a whole sequence: it costs nothing, where a fresh mask for
        every value would cost more than the layer it guards.
        """
        def dropped(x):
            if not drop:
                return x.float()
            keep = torch.empty(len(x), 1, x.shape[-1]).bernoulli_(1 - drop) / (1 - drop)
            return x * keep

        t = ids.shape[1]
        cos, sin = rope_table(self.shape, t)
        mask = torch.full((t, t), float("-inf")).triu(1)
        x = dropped(self.token_embd(ids))
        for block in self.blk:
            x = x + dropped(block.attend(block.attn_norm(x), cos, sin, mask, low))
            x = x + dropped(block.feed(block.ffn_norm(x), low))
        return self.output_norm(x)

    def logits(self, ids):
        return self(ids) @ self.token_embd.weight.T


class TiedLoss(torch.autograd.Function):
    """Sum of weighted cross-entropies of `hidden @ table.T`, with its gradient, chunk by chunk."""

    @staticmethod
    def forward(ctx, hidden, table, target, weight, low):
        low_table = table.to(low)
        d_hidden = torch.empty_like(hidden)
        d_table = torch.zeros_like(table)
        total = hidden.new_zeros(())
        for i in range(0, len(hidden), 512):
            h, y, w = hidden[i:i + 512].to(low), target[i:i + 512, None], weight[i:i + 512, None]
            logp = torch.log_softmax((h @ low_table.T).float(), -1)
            total -= (logp.gather(1, y) * w).sum()
            grad = logp.exp_().scatter_add_(1, y, torch.full_like(w, -1.0)).mul_(w).to(low)
            d_hidden[i:i + 512] = grad @ low_table
            d_table += grad.T @ h
        ctx.save_for_backward(d_hidden, d_table)
        return total

    @staticmethod
    def backward(ctx, scale):
        d_hidden, d_table = ctx.saved_tensors
        return d_hidden * scale, d_table * scale, None, None, None


def loss_sum(model, ids, target, weight, low=torch.float32, drop=0.0):
    hidden = model(ids, low, drop).flatten(0, 1)
    return TiedLoss.apply(hidden, model.token_embd.weight, target.flatten(), weight.flatten(), low)
