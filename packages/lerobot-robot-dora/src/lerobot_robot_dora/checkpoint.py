"""A policy of LeRobot, from its checkpoint; needs LeRobot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.utils import prepare_observation_for_inference
from lerobot.utils.import_utils import register_third_party_plugins
from numpy.typing import NDArray

from lerobot_robot_dora.pictures import Picture

IMAGES = "observation.images."


class Checkpoint:
    """A policy with the processors before and after it."""

    def __init__(self, path: str, device: str | None) -> None:
        register_third_party_plugins()
        config = PreTrainedConfig.from_pretrained(path)
        if device is not None:
            config.device = device
        self._device = torch.device(config.device)
        self._policy = get_policy_class(config.type).from_pretrained(path, config=config)
        overrides = {"device_processor": {"device": str(config.device)}}
        self._before, self._after = make_pre_post_processors(
            config, pretrained_path=path, preprocessor_overrides=overrides
        )
        inputs = config.input_features
        self.cameras: Sequence[str] = [
            name.removeprefix(IMAGES)
            for name, feature in inputs.items()
            if feature.type is FeatureType.VISUAL
        ]
        state = inputs.get("observation.state")
        self.state_size: int | None = state and state.shape[0]
        self.action_size: int = config.output_features["action"].shape[0]
        self.reset()

    def reset(self) -> None:
        for part in (self._policy, self._before, self._after):
            part.reset()

    def predict(
        self, state: NDArray[np.float32], images: Mapping[str, Picture], task: str
    ) -> NDArray[np.float32]:
        observation: dict[str, Any] = {IMAGES + name: one for name, one in images.items()}
        if self.state_size is not None:
            observation["observation.state"] = state
        with torch.inference_mode():
            batch = self._before(prepare_observation_for_inference(observation, self._device, task))
            chunk = self._policy.predict_action_chunk(batch)
            steps = [self._after(chunk[:, index]) for index in range(chunk.shape[1])]
            found: NDArray[np.float32] = torch.cat(steps).to("cpu", torch.float32).numpy()
        return found
