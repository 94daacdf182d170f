"""A release without somebody: what it remembers of them goes; what it has learned from everybody together stays."""

from functools import partial
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from recsys.errors import ReleaseDamaged
from recsys.files import write_beside
from recsys.neighbours import Neighbours
from training.candidate import MEMORY, STATE, memory_from, memory_tensors
from training.strategies import without


def forget(folder: Path, whose: np.ndarray) -> int:
    """Take people out of the replay memory and the neighbours of a release in `folder`; return how many timelines and examples went.

    whose (P,) uint64: who they are, as recsys.sessions.owner_numbers has them.
    """
    neighbours, state = Neighbours.read(folder), load_file(folder / STATE)
    if f"{MEMORY}whose" not in state:
        raise ReleaseDamaged("a release of another version of recsys does not say whose examples it remembers")
    memory = memory_from(state)
    others, rest = neighbours.without(whose), memory.without(whose)
    left = without({name: tensor for name, tensor in state.items() if not name.startswith(MEMORY)}, whose) | memory_tensors(rest)
    if len(others) < len(neighbours):
        others.write(folder)
    if any(name not in left or left[name].shape != tensor.shape for name, tensor in state.items()):
        write_beside(folder / STATE, partial(save_file, left))
    return len(neighbours) - len(others) + len(memory) - len(rest)
