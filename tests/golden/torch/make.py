"""Writes the files beside it, in the current folder. Needs torch 2.13.0 and safetensors 0.8.0.

All values are made from `count`, so that tests can say them without torch.
"""

import torch
from safetensors.torch import save_file
from torch import nn


def count(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """0, 1/8, 2/8, ... in C order."""
    size = torch.Size(shape).numel()
    return (torch.arange(size, dtype=torch.float64) / 8).reshape(shape).to(dtype)


def network() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(count(*parameter.shape))
    return net


net = network()
torch.save(net.state_dict(), "state_dict.pt")
torch.save(net.state_dict(), "state_dict_saved_under_another_name.pt")
torch.save(net.state_dict(), "state_dict_protocol_4.pt", pickle_protocol=4)
torch.save(net.state_dict(), "state_dict_legacy.pt", _use_new_zipfile_serialization=False)
torch.save(net, "module.pt")
save_file(net.state_dict(), "state_dict.safetensors", metadata={"format": "pt"})

optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
net(count(5, 4)).square().sum().backward()
optimizer.step()
net = network().train(False)
checkpoint = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "loss": 0.5}
torch.save({**checkpoint, "epoch": 3}, "checkpoint.pt")
torch.save({**checkpoint, "epoch": 4}, "checkpoint_later.pt")
torch.save(optimizer.state_dict(), "optimizer.pt")

whole = count(4, 6)
tied = nn.Parameter(count(2, 2))
torch.save(
    {
        "contiguous": whole,
        "transposed": whole.t(),
        "columns": whole[:, 1:5:2],
        "middle": whole.reshape(-1)[5:9],
        "expanded": count(3).expand(2, 3),
        "permuted": count(2, 3, 4).permute(2, 0, 1),
        "parameter": tied,
        "tied": tied,
        "frozen": nn.Parameter(count(3), requires_grad=False),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "nested": [count(2), (count(3), {"deep": count(1)})],
    },
    "layouts.pt",
)
floats = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
integers = ["int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"]
dtypes = [*floats, *integers, "bool", "complex128", "complex64"]
torch.save({name: count(5, dtype=getattr(torch, name)) for name in dtypes}, "dtypes.pt")
torch.save(
    {
        "quantised": torch.quantize_per_tensor(count(3), 0.125, 0, torch.qint8),
        "sparse": torch.eye(3).to_sparse(),
        "conjugated": count(2, dtype=torch.complex64).conj(),
        "meta": torch.empty(3, device="meta"),
        "size": torch.Size([1, 2]),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "set": {1},
        (1, 2): "a key that is no text",
        "big": 10**30,
        "text": "x" * 200,
    },
    "unusual.pt",
)
