"""The few collective operations that training needs, the same for one process and for many."""

import os
from datetime import timedelta
from typing import Any, Callable, List, Optional

import torch
import torch.distributed as dist

# What the first rank does alone while the others wait, such as reshaping a checkpoint of a large
# model, may take longer than NCCL's ten minutes.
_PATIENCE = timedelta(hours=3)


def init_process_group(ngpu: int, local_rank: Optional[int] = None) -> None:
    """Make the process group that DeepSpeed wants, also for a single process.

    Args:
        ngpu: 0 for gloo on the CPU, else NCCL.
        local_rank: number of this process on its machine, where the launcher did not say it in
            the environment (``espnet2.bin.launch`` does not).
    """
    # The shared-memory collective is compiled at first use and needs ninja; gloo does as well.
    from deepspeed.ops import __compatible_ops__

    __compatible_ops__["deepspeed_shm_comm"] = False
    import deepspeed

    backend = "nccl" if ngpu > 0 else "gloo"
    if not dist.is_initialized() and "RANK" not in os.environ:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    os.environ.setdefault("LOCAL_RANK", str(local_rank or 0))  # DeepSpeed insists on it
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    if dist.get_world_size() > 1:
        # ESPnet leaves NCCL's ten minutes, less than a large checkpoint may take to be written.
        dist.distributed_c10d._set_pg_timeout(_PATIENCE, dist.group.WORLD)


def end_process_group() -> None:
    """Leave together: threads of gloo that outlive the first rank's sockets abort the process."""
    if dist.get_world_size() > 1:
        dist.barrier()
        dist.destroy_process_group()


class Ranks:
    """All processes of a training, seen from one of them.

    Numbers go over the group that trains; objects over one of gloo that waits for hours.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._control = None
        if self.world_size > 1:
            self._control = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over all ranks, on the CPU."""
        if self.world_size == 1:
            return values.cpu()
        values = values.to(self.device)
        dist.all_reduce(values)
        return values.cpu()

    def max(self, values: List[float]) -> List[float]:
        """Largest of each value over all ranks."""
        if self.world_size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def gather(self, value: Any) -> List[Any]:
        """What each rank has, on every rank."""
        if self.world_size == 1:
            return [value]
        values: List[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def on_first(self, make: Callable[[], Any]) -> Any:
        """Call ``make`` on the first rank; every rank gets what it returns, after it is done.

        An error there is raised everywhere, so that no rank waits for ever.
        """
        box: List[Any] = [None, None]
        if self.rank == 0:
            try:
                box[0] = make()
            except Exception as error:
                box[1] = error
        if self.world_size > 1:
            dist.broadcast_object_list(box, src=0, group=self._control)
        if box[1] is not None:
            raise box[1]
        return box[0]

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.world_size > 1:
            dist.barrier(group=self._control)
