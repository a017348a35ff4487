"""A linear layer whose three matmuls each have an encoder per operand."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from planish_kernels.formats.format import Operand
from planish_kernels.matmul import explain_matmul, matmul
from planish_kernels.nn.encoders import Encoder, LinearEncoders, takes_master


class MatmulChoice(NamedTuple):
    """The kernel that runs a matmul, and why: that it was the first to take the pair, or what others declined."""

    kernel: str
    reason: str


class EncodedLinear(nn.Linear):
    """``nn.Linear`` with encoded operands: ``output = encode(input) @ encode(weight).T + bias``.

    Its parameters, their names and its ``state_dict`` are those of the layer that it stands for; encoders add nothing.
    Where no encoder is set it computes exactly what ``nn.Linear`` does. It works with inputs of any rank, autocast (as
    ``F.linear``: inputs, weight and bias are cast; the weight gradient leaves the matmul in the weight's own dtype),
    ``torch.compile(fullgraph=True)``, activation checkpointing and CUDA graphs as far as its encoders do. A second
    derivative is refused, since a straight-through gradient has none.

    Attributes:
        encoders: the encoders in use; assign another ``LinearEncoders`` to change them (compiled code notices).
        transposed_weight: whether ``weight`` is stored ``[in_features, out_features]`` (Hugging Face's ``Conv1D``).
    """

    encoders: LinearEncoders
    transposed_weight: bool

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        encoders: LinearEncoders | None = None,
        *,
        transposed_weight: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.encoders = LinearEncoders() if encoders is None else encoders
        self.transposed_weight = transposed_weight
        if transposed_weight:
            self.weight = nn.Parameter(self.weight.detach().t().contiguous())

    @classmethod
    def from_linear(cls, linear: nn.Module, encoders: LinearEncoders, *, transposed_weight: bool = False) -> Self:
        """An encoded layer that stands for ``linear``: the same Parameter objects, hooks and training mode.

        Args:
            linear: an ``nn.Linear``, or with ``transposed_weight`` a module with ``weight`` [in, out] and an optional
                ``bias`` [out] such as Hugging Face's ``Conv1D``.
            encoders: see ``LinearEncoders``.

        Raises:
            TypeError: the module is neither.
            ValueError: its weight is parametrised, or its ``forward`` was replaced on the instance.
        """
        kind = type(linear).__name__
        if not transposed_weight and not isinstance(linear, nn.Linear):
            raise TypeError(f"{kind} is no nn.Linear: pass one, or transposed_weight=True if it stores [in, out]")
        if transposed_weight and isinstance(linear, nn.Linear) and not getattr(linear, "transposed_weight", False):
            raise TypeError(f"{kind} stores its weight [out, in]: leave transposed_weight out")
        weight = linear._parameters.get("weight")
        if weight is None or weight.dim() != 2:
            raise ValueError(
                f"{kind} holds no two-dimensional parameter named 'weight' (it may be parametrised: "
                f"torch.nn.utils.parametrize.remove_parametrizations first)"
            )
        if "forward" in linear.__dict__:
            raise ValueError(f"forward of this {kind} was replaced on the instance: remove that wrapper first")
        layer = cls.__new__(cls)
        # All that is in the module moves over: parameters (the same objects), hooks, training mode, user attributes.
        layer.__dict__.update({k: copy.copy(v) if isinstance(v, dict) else v for k, v in linear.__dict__.items()})
        layer._parameters.setdefault("bias", None)
        layer.out_features, layer.in_features = weight.shape[::-1] if transposed_weight else weight.shape
        layer.encoders = encoders
        layer.transposed_weight = transposed_weight
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in_features] -> [..., out_features]``."""
        if input.shape[-1] != self.in_features:
            raise ValueError(f"input has shape {tuple(input.shape)}, expected [..., in_features={self.in_features}]")
        device = input.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            # Autocast leaves float64 alone.
            if input.is_floating_point() and input.dtype is not torch.float64:
                input = input.to(dtype)
        tokens = input.reshape(-1, self.in_features)
        output: Tensor = _EncodedLinear.apply(  # type: ignore[no-untyped-call]
            tokens, self.weight, self.bias, self.encoders, self.transposed_weight
        )
        return output.view(*input.shape[:-1], self.out_features)

    def refresh(self) -> None:
        """Ask the encoders to recompute what they cache."""
        self.encoders.refresh()

    @torch.no_grad()
    def explain(self, tokens: int, dtype: torch.dtype | None = None) -> dict[str, MatmulChoice]:
        """Which kernel would run each of the three matmuls for ``tokens`` rows of input, and why.

        Encodes the real weight, and zeros in place of input and gradient, with copies of the encoders: nothing changes.

        Args:
            tokens: the rows of the flattened input.
            dtype: the compute dtype (autocast's, say); default the weight's.
        """
        dtype = self.weight.dtype if dtype is None else dtype
        encoders = copy.deepcopy(self.encoders, {id(self.weight): self.weight, id(self.bias): self.bias})
        input = self.weight.new_zeros(tokens, self.in_features, dtype=dtype)
        grad_output = self.weight.new_zeros(tokens, self.out_features, dtype=dtype)
        weight = self.weight.detach()
        chosen: dict[str, MatmulChoice] = {}
        cuda = [self.weight.device] if self.weight.is_cuda else []
        with torch.random.fork_rng(devices=cuda):
            pairs = {
                "forward": _forward_operands(encoders, input, weight, self.transposed_weight),
                "input_grad": _input_grad_operands(encoders, grad_output, weight, self.transposed_weight),
                "weight_grad": _weight_grad_operands(encoders, grad_output, input, self.transposed_weight),
            }
        for name, (left, right) in pairs.items():
            rows = explain_matmul(left, right)
            taken = next(row for row in rows if row.chosen)
            # Kernels for other types than this pair's are no news; those that would take it and did not are.
            declined = [
                f"{row.kernel}: {row.reason}" for row in rows[: rows.index(taken)] if "it takes" not in row.reason
            ]
            chosen[name] = MatmulChoice(taken.kernel, "; ".join(declined) or taken.reason)
        return chosen

    def extra_repr(self) -> str:
        """Features, bias and the encoders that are set."""
        shown = [super().extra_repr()]
        if self.transposed_weight:
            shown.append("transposed_weight=True")
        for name in ("forward", "input_grad", "weight_grad"):
            operands = getattr(self.encoders, name)
            if operands.left is not None or operands.right is not None:
                shown.append(f"{name}=({_name(operands.left)}, {_name(operands.right)})")
        return ", ".join(shown)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for encoder in self.encoders.leaves():
            if isinstance(encoder, nn.Module):
                encoder._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class _EncodedLinear(torch.autograd.Function):
    """The three matmuls. ``input`` [tokens, in], ``weight`` stored [out, in], or [in, out] where ``transposed``."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, encoders: LinearEncoders, transposed: bool
    ) -> Tensor:
        ctx.encoders = encoders
        ctx.transposed = transposed
        ctx.weight_dtype = weight.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        master = takes_master(encoders.forward.right) and takes_master(encoders.input_grad.right)
        operand = weight.to(input.dtype) if _autocast_casts(input, weight) and not master else weight
        if bias is not None and _autocast_casts(input, bias):
            bias = bias.to(input.dtype)
        with _no_autocast(input):
            # The gradient of either factor needs the other one, and only that.
            ctx.save_for_backward(
                input if ctx.needs_input_grad[1] else None, operand if ctx.needs_input_grad[0] else None
            )
            if encoders.forward.left is None and encoders.forward.right is None:
                return F.linear(input, operand.t() if transposed else operand, bias)
            left, right = _forward_operands(encoders, input, operand, transposed)
            output = matmul(left, right)
            if bias is None:
                return output
            # Dynamo of torch 2.11 loses the gradients of a Function that writes into an intermediate; compiled code
            # fuses the sum anyway.
            return output + bias if torch.compiler.is_compiling() else output.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        input, weight = ctx.saved_tensors
        grad_input = grad_weight = grad_bias = None
        with _no_autocast(grad_output):
            if ctx.needs_input_grad[0]:
                grad_input = matmul(*_input_grad_operands(ctx.encoders, grad_output, weight, ctx.transposed))
            if ctx.needs_input_grad[1]:
                operands = _weight_grad_operands(ctx.encoders, grad_output, input, ctx.transposed)
                grad_weight = matmul(*operands, out_dtype=ctx.weight_dtype)
            if ctx.needs_input_grad[2]:
                grad_bias = grad_output.sum(0, dtype=ctx.bias_dtype)
        return grad_input, grad_weight, grad_bias, None, None


def _forward_operands(
    encoders: LinearEncoders, input: Tensor, weight: Tensor, transposed: bool
) -> tuple[Operand, Operand]:
    """``input`` [tokens, in] and ``weight.T`` [in, out]."""
    logical = weight.t() if transposed else weight
    left = _encode(encoders.forward.left, input, 1, "forward input")
    right = _encode(encoders.forward.right, logical, 1, "forward weight")
    return _align(left, _transpose(right), "forward")


def _input_grad_operands(
    encoders: LinearEncoders, grad_output: Tensor, weight: Tensor, transposed: bool
) -> tuple[Operand, Operand]:
    """``grad_output`` [tokens, out] and ``weight`` [out, in]."""
    logical = weight.t() if transposed else weight
    left = _encode(encoders.input_grad.left, grad_output, 1, "input_grad grad_output")
    right = _encode(encoders.input_grad.right, logical, 0, "input_grad weight")
    return _align(left, right, "input_grad")


def _weight_grad_operands(
    encoders: LinearEncoders, grad_output: Tensor, input: Tensor, transposed: bool
) -> tuple[Operand, Operand]:
    """``grad_output.T`` [out, tokens] and ``input`` [tokens, in]; transposed, the product lies as the weight."""
    left = _encode(encoders.weight_grad.left, grad_output, 0, "weight_grad grad_output")
    right = _encode(encoders.weight_grad.right, input, 0, "weight_grad input")
    if transposed:
        return _align(_transpose(right), left, "weight_grad")
    return _align(_transpose(left), right, "weight_grad")


def _encode(encoder: Encoder | None, tensor: Tensor, contraction: int, what: str) -> Operand:
    if encoder is None:
        return tensor
    if 0 in tensor.stride() and tensor.numel() > 1:
        # A gradient expanded from a sum has stride 0: kernels behind encoders address real memory.
        tensor = tensor.contiguous()
    operand = encoder.encode(tensor, contraction=contraction)
    free = 1 - contraction
    if (
        len(operand.shape) != 2
        or operand.shape[free] != tensor.shape[free]
        or operand.shape[contraction] < tensor.shape[contraction]
    ):
        raise ValueError(
            f"{what}: {_name(encoder)} turned shape {tuple(tensor.shape)} into {tuple(operand.shape)}: an encoder "
            f"keeps the shape, and may lengthen dimension {contraction}, which the matmul sums over, by zeros"
        )
    return operand


def _align(left: Operand, right: Operand, what: str) -> tuple[Operand, Operand]:
    """Fill a dense operand up with zeros where the encoder of the other lengthened the contraction dimension."""
    missing = left.shape[1] - right.shape[0]
    if missing > 0 and isinstance(right, Tensor):
        right = F.pad(right, (0, 0, 0, missing))
    elif missing < 0 and isinstance(left, Tensor):
        left = F.pad(left, (0, -missing))
    elif missing:
        raise ValueError(
            f"{what}: the encoders return {tuple(left.shape)} @ {tuple(right.shape)}: both must fill the dimension "
            f"between them up to the same length"
        )
    return left, right


def _transpose(operand: Operand) -> Operand:
    return operand.t() if isinstance(operand, Tensor) else operand.T


def _autocast_casts(input: Tensor, parameter: Tensor) -> bool:
    """Whether autocast is on and would cast this parameter to the (already cast) input's dtype."""
    return (
        torch.is_autocast_enabled(input.device.type)
        and parameter.dtype != input.dtype
        and parameter.is_floating_point()
        and parameter.dtype is not torch.float64
    )


def _no_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Inside, dtypes are ours: an encoder that computes in float32 must not be cast behind its back.

    A compiled backward is traced under the forward's autocast, which ``is_autocast_enabled`` does not show there.
    """
    if torch.is_autocast_enabled(tensor.device.type) or torch.compiler.is_compiling():
        return torch.autocast(tensor.device.type, enabled=False)
    return contextlib.nullcontext()


def _name(encoder: Encoder | None) -> str:
    return "dense" if encoder is None else type(encoder).__name__
