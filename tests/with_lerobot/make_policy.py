"""Writes the checkpoint of a tiny ACT policy with random weights: python make_policy.py FOLDER."""

import sys

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors

SHAPES = {"observation.state": (3,), "observation.images.front": (3, 48, 64), "action": (3,)}
KINDS = (FeatureType.STATE, FeatureType.VISUAL, FeatureType.ACTION)

features = {
    name: PolicyFeature(type=kind, shape=shape)
    for (name, shape), kind in zip(SHAPES.items(), KINDS, strict=True)
}
action = features.pop("action")
config = ACTConfig(
    input_features=features,
    output_features={"action": action},
    chunk_size=20,
    n_action_steps=20,
    dim_model=32,
    n_heads=2,
    dim_feedforward=64,
    n_encoder_layers=1,
    n_vae_encoder_layers=1,
    latent_dim=8,
    pretrained_backbone_weights=None,
    device="cpu",
    push_to_hub=False,
)
statistics = {
    name: {"mean": torch.zeros(shape), "std": torch.ones(shape)}
    for name, shape in {**SHAPES, "observation.images.front": (3, 1, 1)}.items()
}
for part in (ACTPolicy(config), *make_pre_post_processors(config, dataset_stats=statistics)):
    part.save_pretrained(sys.argv[1])
