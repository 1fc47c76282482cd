from __future__ import annotations

import jax
import jax.numpy as jnp
import torch
from jax import lax

A = torch.ops.aten
DT = {
    torch.float32: jnp.float32,
    torch.float64: jnp.float64,
    torch.int64: jnp.int64,
    torch.bool: jnp.bool_,
    torch.int32: jnp.int32,
}


class Unsupported(Exception):
    pass


def prom(fn):
    def go(a, b, **k):
        return fn(*two(a, b), **k)

    return go


def two(a, b):
    ja, jb = isinstance(a, jax.Array), isinstance(b, jax.Array)
    if ja and jb:
        fa, fb = jnp.issubdtype(a.dtype, jnp.floating), jnp.issubdtype(b.dtype, jnp.floating)
        if a.ndim and not b.ndim and fa >= fb:
            return a, b.astype(a.dtype)
        if b.ndim and not a.ndim and fb >= fa:
            return a.astype(b.dtype), b
        return a, b
    if ja:
        return a, jnp.asarray(b, a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else b
    if jb:
        return jnp.asarray(a, b.dtype) if jnp.issubdtype(b.dtype, jnp.floating) else a, b
    return a, b


def add(a, b, alpha=1):
    a, b = two(a, b)
    return a + b * jnp.asarray(alpha, b.dtype) if alpha != 1 else a + b


def sub(a, b, alpha=1):
    return add(a, b, -alpha)


def ident(x, *a, **k):
    return x


def full_like(x, v, dtype=None, **k):
    return jnp.full(x.shape, v, DT[dtype] if dtype else x.dtype)


def view(x, s):
    return x.reshape([int(i) for i in s])


def amax(x, dim=(), keepdim=False):
    return jnp.max(x, axis=tuple(dim) or None, keepdims=keepdim)


def sm(x, dim=None, keepdim=False, dtype=None):
    return jnp.sum(x, axis=tuple(dim) if dim else None, keepdims=keepdim)


def mean(x, dim=None, keepdim=False, dtype=None):
    return jnp.mean(x, axis=tuple(dim) if dim else None, keepdims=keepdim)


T = {
    A.detach_copy.default: ident,
    A.clone.default: ident,
    A.alias_copy.default: ident,
    A.alias.default: ident,
    A.detach.default: ident,
    A.mul.Tensor: prom(lambda a, b: a * b),
    A.mul.Scalar: prom(lambda a, b: a * b),
    A.add.Tensor: add,
    A.add.Scalar: add,
    A.sub.Tensor: sub,
    A.sub.Scalar: sub,
    A.rsub.Scalar: lambda a, b: sub(jnp.asarray(b, a.dtype), a),
    A.div.Tensor: prom(lambda a, b: a / b),
    A.div.Scalar: prom(lambda a, b: a / b),
    A.full_like.default: full_like,
    A.ones_like.default: lambda x, **k: jnp.ones_like(x),
    A.zeros_like.default: lambda x, **k: jnp.zeros_like(x),
    A.view_copy.default: view,
    A.view.default: view,
    A._unsafe_view.default: view,
    A.reshape.default: view,
    A.abs.default: jnp.abs,
    A.amax.default: amax,
    A.ne.Scalar: prom(lambda a, b: a != b),
    A.eq.Tensor: prom(lambda a, b: a == b),
    A.eq.Scalar: prom(lambda a, b: a == b),
    A.le.Scalar: prom(lambda a, b: a <= b),
    A.gt.Scalar: prom(lambda a, b: a > b),
    A.logical_and.default: jnp.logical_and,
    A.mm.default: lambda a, b: a @ b,
    A.addmm.default: lambda c, a, b, beta=1, alpha=1: beta * c + alpha * (a @ b),
    A.t_copy.default: lambda x: x.T,
    A.t.default: lambda x: x.T,
    A.permute_copy.default: jnp.transpose,
    A.permute.default: jnp.transpose,
    A.transpose_copy.int: jnp.swapaxes,
    A.relu.default: lambda x: jnp.maximum(x, 0),
    A.tanh.default: jnp.tanh,
    A.exp.default: jnp.exp,
    A.log.default: jnp.log,
    A.sqrt.default: jnp.sqrt,
    A.neg.default: lambda x: -x,
    A.reciprocal.default: lambda x: 1 / x,
    A.sum.dim_IntList: sm,
    A.sum.default: sm,
    A.mean.default: mean,
    A.mean.dim: mean,
    A.expand_copy.default: lambda x, s, **k: jnp.broadcast_to(
        x, [x.shape[i - len(s) + x.ndim] if d == -1 else d for i, d in enumerate(s)]
    ),
    A.expand.default: lambda x, s: jnp.broadcast_to(x, s),
    A.unsqueeze_copy.default: jnp.expand_dims,
    A.squeeze_copy.dim: lambda x, d: jnp.squeeze(x, d),
    A.squeeze_copy.dims: lambda x, d: jnp.squeeze(x, tuple(d)),
    A.squeeze.dims: lambda x, d: jnp.squeeze(x, tuple(d)),
    A.unsqueeze.default: jnp.expand_dims,
    A._log_softmax.default: lambda x, d, h: jax.nn.log_softmax(x, d),
    A.where.self: jnp.where,
    A.gather.default: lambda x, d, i, **k: jnp.take_along_axis(x, i, d),
    A.select_copy.int: lambda x, d, i: lax.index_in_dim(x, i, d, keepdims=False),
    A.select.int: lambda x, d, i: lax.index_in_dim(x, i, d, keepdims=False),
    A.full.default: lambda s, v, dtype=None, **k: jnp.full(s, v, DT[dtype]),
    A.scalar_tensor.default: lambda v, dtype=None, **k: jnp.asarray(v, DT[dtype]),
    A.pow.Tensor_Scalar: lambda a, b: a**b if b != 2 else a * a,
    A.pow.Scalar: lambda a, b: jnp.asarray(a, b.dtype) ** b,
    A.pow.Tensor_Tensor: prom(lambda a, b: a**b),
    A.addcmul.default: lambda a, b, c, value=1: a + jnp.asarray(value, a.dtype) * b * c,
    A.addcdiv.default: lambda a, b, c, value=1: a + jnp.asarray(value, a.dtype) * b / c,
    A.lerp.Scalar: lambda a, b, w: (
        a + jnp.asarray(w, a.dtype) * (b - a) if abs(w) < 0.5 else b - (b - a) * jnp.asarray(1 - w, a.dtype)
    ),
    A.scatter.value: lambda x, d, i, v: x.at[jnp.arange(x.shape[0])[:, None], i].set(v),
    A._to_copy.default: lambda x, dtype=None, **k: x.astype(DT[dtype]) if dtype else x,
    A.ge.Scalar: prom(lambda a, b: a >= b),
    A.sigmoid.default: jax.nn.sigmoid,
    A.slice_copy.Tensor: lambda x, d=0, s=None, e=None, st=1: lax.slice_in_dim(
        x, s, min(e, x.shape[d]) if e is not None else None, st, d
    ),
    A.copy.default: lambda a, b: b.astype(a.dtype),
}


def translate(graph):
    bad = sorted(
        {
            str(n.target)
            for n in graph.graph.nodes
            if n.op == "call_function" and n.target not in T and n.target is not __import__("operator").getitem
        }
    )
    if bad:
        raise Unsupported(bad)
    consts = {n: jnp.asarray(getattr(graph, n.target).numpy()) for n in graph.graph.nodes if n.op == "get_attr"}

    def run(*args):
        env = dict(consts)
        it = iter(args)
        for n in graph.graph.nodes:
            if n.op == "placeholder":
                env[n] = next(it)
            elif n.op == "call_function":
                env[n] = (
                    T[n.target](
                        *torch.fx.node.map_arg(n.args, env.__getitem__),
                        **torch.fx.node.map_arg(n.kwargs, env.__getitem__),
                    )
                    if n.target in T
                    else None
                )
            elif n.op == "output":
                return tuple(torch.fx.node.map_arg(n.args[0], env.__getitem__))

    return run
