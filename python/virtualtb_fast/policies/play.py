"""What a training sees: customers side by side, who are shown a policy's pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._torch import Tensor, torch
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.networks import Gaussian, GaussianPolicy, stream
from virtualtb_fast.simulator import Simulator
from virtualtb_fast.store import GroundTruthStore

__all__ = ["Batch", "Lanes"]


@dataclass
class Batch:
    """Pages as tensors, lane after lane."""

    seen: Tensor
    """(R, D) observations."""
    action: Tensor
    """(R, A), in units."""
    reward: Tensor
    """(R,), shaped."""
    terminated: Tensor
    truncated: Tensor
    """(R,): ends; also where the iteration cuts a session off."""
    after: Tensor
    """(rows that are truncated, D): what was seen after them."""
    raw: float
    """Mean reward without the constraint."""
    norm: float
    """Mean norm of executed actions."""


class Lanes:
    """Environments side by side, which play on from one iteration to the next."""

    def __init__(
        self,
        place: Simulator | GroundTruthStore,
        *,
        lanes: int,
        steps: int,
        reward: str | None,
        anc: tuple[float, float] | None,
        seed: int,
        num_threads: int | None,
    ) -> None:
        """Environments of a place; arguments are those of a training's settings."""
        store = isinstance(place, GroundTruthStore)
        self.low, self.high = place.schema.action_range
        self.width = place.schema.observation_width
        self.steps = steps
        name = "GroundTruthStore-v0" if store else "VirtualTB-v1"
        options: dict[str, Any] = {"store" if store else "simulator": place, "anc": anc}
        options["reward"] = reward or ("buy" if store else "expected")
        self.envs: Any = gymnasium.make_vec(
            f"virtualtb_fast:{name}",
            num_envs=lanes,
            num_threads=num_threads,
            autoreset_mode="SameStep",
            **options,
        ).unwrapped
        first = torch.randint(1 << 62, (), generator=stream(seed, "sessions"))
        self.envs.reset(seed=int(first))

    def play(self, policy: GaussianPolicy, rng: torch.Generator) -> Batch:
        """Shows ``steps`` pages in every lane."""
        seen = [self._seen(self.envs.observe())]
        actions, rewards, ended, cut = [], [], [], []
        after: list[NDArray[np.float32]] = []
        raw = norm = 0.0
        unit = policy.unit.numpy()
        for step in range(self.steps):
            with torch.no_grad():
                wanted: Gaussian = policy(seen[-1])
                noise = torch.randn(wanted.mean.shape, generator=rng)
                action = wanted.mean + wanted.log_sd.exp() * noise
            shown = np.clip(action.numpy() * unit, self.low, self.high)
            found, reward, terminated, truncated, infos = self.envs.step(shown)
            raw += float(_raw_rewards(infos).mean()) / self.steps
            norm += float(np.linalg.norm(shown, axis=1).mean()) / self.steps
            if (reward < 0.0).any():
                got = f"{reward.min()}: a quotient would reward far actions"
                raise InvalidArgumentError(f"rewards: expected none below 0, got {got}")
            last = np.array(found)
            over = terminated | truncated
            if over.any():
                last[over] = np.stack(infos["final_obs"][over])
            # What an iteration leaves unfinished is cut off as well.
            truncated = truncated | ~over if step + 1 == self.steps else truncated
            after.append(last)
            actions.append(action)
            rewards.append(torch.from_numpy(reward.astype(np.float32)))
            ended.append(torch.from_numpy(terminated))
            cut.append(torch.from_numpy(truncated))
            seen.append(self._seen(found))
        truncations = _lanewise(cut)
        return Batch(
            _lanewise(seen[:-1]),
            _lanewise(actions),
            _lanewise(rewards),
            _lanewise(ended),
            truncations,
            _lanewise([self._seen(one) for one in after])[truncations],
            raw,
            norm,
        )

    def _seen(self, observations: NDArray[Any]) -> Tensor:
        # A store that remembers actions shows them behind the columns that policies know.
        return torch.from_numpy(np.ascontiguousarray(observations[:, : self.width], np.float32))


def _raw_rewards(infos: Mapping[str, Any]) -> NDArray[np.float64]:
    raw: NDArray[np.float64] = infos["raw_reward"].copy()
    if "final_info" in infos:
        ended = infos["_final_info"]
        raw[ended] = infos["final_info"]["raw_reward"][ended]
    return raw


def _lanewise(steps: list[Tensor]) -> Tensor:
    """(steps) of (lanes, ...) as (lanes * steps, ...): the steps of a lane stand together."""
    return torch.stack(steps, 1).flatten(0, 1)
