"""The states of lanes that part, put together again."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.lanes.operations.tensor import LaneTensor
from runner.sweep.lanes.states import Place, joined


def place(lanes: tuple[int, ...], tensors: dict[str, Tensor]) -> Place:
    return Place(lanes, {"position": 3}, tensors, tuple(10 + lane for lane in lanes), tuple({} for _ in lanes), {})


def test_joined_places_have_the_tensors_of_each_lane_in_order() -> None:
    one = place(
        (0, 3),
        {
            "weights.w": LaneTensor(torch.tensor([[1.0, 2.0], [3.0, 4.0]])),
            "values.h": torch.tensor([5.0]),  # equal in both lanes of this place
            "optimizers.o.state.w.exp_avg": LaneTensor(torch.tensor([6.0, 7.0])),
            "optimizers.o.state.w.step": torch.tensor(8.0),  # equal in all places
        },
    )
    other = place(
        (1,),
        {
            "weights.w": LaneTensor(torch.tensor([[9.0, 10.0]])),
            "values.h": torch.tensor([11.0]),
            "optimizers.o.state.w.exp_avg": LaneTensor(torch.tensor([12.0])),
            "optimizers.o.state.w.step": torch.tensor(8.0),
        },
    )
    found = joined([one, other])
    assert (found.lanes, found.rows, found.shared) == ((0, 3, 1), (10, 13, 11), {"position": 3})
    lanes = {name: tensor.lanes.tolist() for name, tensor in found.tensors.items() if isinstance(tensor, LaneTensor)}
    assert lanes == {
        "weights.w": [[1, 2], [3, 4], [9, 10]],
        "values.h": [[5], [5], [11]],
        "optimizers.o.state.w.exp_avg": [6, 7, 12],
    }
    assert found.tensors["optimizers.o.state.w.step"].item() == 8
    assert joined([one]) is one
