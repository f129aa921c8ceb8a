"""Reads datasets with LeRobot, and merges them: python datasets.py TARGET FOLDER..."""

import json
import sys
from pathlib import Path

from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def read(folder: str) -> dict[str, object]:
    dataset = LeRobotDataset(f"me/{Path(folder).name}", root=folder, video_backend="pyav")
    first = dataset[0]
    return {
        "episodes": dataset.num_episodes,
        "frames": len(dataset),
        "fps": dataset.meta.info.fps,
        "robot": dataset.meta.info.robot_type,
        "names": dataset.meta.features["action"]["names"],
        "picture": list(first["observation.images.front"].shape),
    }


target, *folders = sys.argv[1:]
if len(folders) > 1:
    names = [f"me/{Path(folder).name}" for folder in folders]
    roots = [Path(folder) for folder in folders]
    aggregate_datasets(names, f"me/{Path(target).name}", roots=roots, aggr_root=Path(target))
    folders.append(target)
print(json.dumps([read(folder) for folder in folders]))
