"""What test_bitwise runs under each instruction set: every op, every dtype, odd sizes."""

import torch

import accl_ext
from accl_ext import reference
from ops.op_cases import CASES
from ops.oracle import DTYPES


def results() -> dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """name -> (outputs and gradients of the fused op, the same of the reference in float64)."""
    found = {}
    for case in CASES:
        for dtype in DTYPES:
            for spatial in ((1,), (33,), (97, 89)):
                torch.manual_seed(0)
                leaves, run = case.make(dtype, spatial)
                outputs = run(accl_ext, *leaves)
                cotangents = [torch.randn_like(x) for x in outputs]
                got = [*outputs, *torch.autograd.grad(outputs, leaves, cotangents)]
                wide = [x.detach().double().requires_grad_() for x in leaves]
                oracle = run(reference, *wide)
                used = [i for i, x in enumerate(oracle) if x.requires_grad]
                gradients = torch.autograd.grad(
                    [oracle[i] for i in used], wide, [cotangents[i].double() for i in used]
                )
                name = f"{case.id}-{dtype}-{spatial}"
                found[name] = (
                    [x.detach() for x in got],
                    [x.detach() for x in (*oracle, *gradients)],
                )
    return found
