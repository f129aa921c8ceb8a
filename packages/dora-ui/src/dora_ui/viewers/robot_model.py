"""Displays robots of URDF files in Rerun, with their joint positions."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dora_node_api.data.visual_values import Joints

from .rerun_archetypes import path_part
from .viewer_node import CannotShow

_MOVING = ("revolute", "continuous", "prismatic")
_PULL_SECONDS = 300.0
"""Time for the download of a robot."""


class RobotModel:
    """One robot; its joints move in the order of the file unless messages name them."""

    def __init__(self, name: str, file: Path, origin: str | None) -> None:
        """``origin``: `x y z` in metres, or with the quaternion `qw qx qy qz`.

        Raises CannotShow for a file that cannot be read and for an invalid origin.
        """
        try:
            from rerun.urdf import UrdfTree
        except ImportError as error:
            raise CannotShow(
                "URDF files need a newer rerun-sdk; run: pip install -U rerun-sdk"
            ) from error
        self.name = name
        self._origin = _numbers(name, origin)
        try:
            self._tree = UrdfTree.from_file_path(file, entity_path_prefix=name)
        except (OSError, RuntimeError, ValueError) as error:
            raise CannotShow(f"{file} is not a URDF file that Rerun can read: {error}") from error
        self._joints = [
            one for one in self._tree.joints() if one.joint_type in _MOVING and one.mimic is None
        ]

    def log(self, recording: Any) -> None:
        """Log the robot in its initial pose."""
        self._tree.log_urdf_to_recording(recording)
        if self._origin is None:
            return
        import rerun as rr

        position, (w, *xyz) = self._origin
        placed = rr.Transform3D(
            translation=position,
            quaternion=rr.Quaternion(xyzw=[*xyz, w]),
            parent_frame="tf#/",
            child_frame=self._tree.root_link().name,
        )
        recording.log(f"{self.name}/origin", placed, static=True)

    def move(self, recording: Any, joints: Joints) -> None:
        """Log the pose of each joint, by name if the message has names of joints of the robot.

        Otherwise the order decides; missing positions are zero, more are ignored.
        """
        named = dict(zip(joints.names, joints.positions, strict=False))
        by_name = any(joint.name in named for joint in self._joints)
        for index, joint in enumerate(self._joints):
            if by_name:
                position = named.get(joint.name)
            else:
                position = joints.positions[index] if index < len(joints.positions) else 0.0
            if position is not None:
                moved = joint.compute_transform(position, clamp=True)
                recording.log(f"{self.name}/joints/{path_part(joint.name)}", moved)


def _numbers(name: str, origin: str | None) -> tuple[list[float], list[float]] | None:
    if origin is None:
        return None
    try:
        numbers = [float(one) for one in origin.split()]
    except ValueError:
        numbers = []
    if len(numbers) not in (3, 7):
        raise CannotShow(f'{name}_transform is "{origin}"; expected "x y z" or "x y z qw qx qy qz"')
    return numbers[:3], numbers[3:] or [1.0, 0.0, 0.0, 0.0]


def robot_models(environ: Mapping[str, str]) -> dict[str, RobotModel]:
    """Return the robots of the variables `NAME_urdf`, by name. Raises CannotShow."""
    found = {}
    for variable, value in environ.items():
        name = variable.removesuffix("_urdf").removesuffix("_URDF")
        if name not in ("", variable):
            origin = environ.get(f"{name}_transform", environ.get(f"{name}_TRANSFORM"))
            found[name] = RobotModel(name, _file(variable, value), origin)
    return found


def _file(variable: str, value: str) -> Path:
    """Return the file: a path, or a robot of the package robot_descriptions."""
    file = Path(value)
    if file.is_file():
        return file
    if not value.endswith("_description"):
        raise CannotShow(f"{variable}: the file {file.absolute()} does not exist")
    try:
        pulled = subprocess.run(
            ["robot_descriptions", "pull", value],
            check=True,
            capture_output=True,
            text=True,
            timeout=_PULL_SECONDS,
        ).stdout.split("\n")
    except FileNotFoundError as error:
        raise CannotShow(
            f"{variable}: {value} needs robot_descriptions; run: pip install robot_descriptions"
        ) from error
    except (subprocess.SubprocessError, OSError) as error:
        raise CannotShow(f"{variable}: robot_descriptions cannot load {value}: {error}") from error
    return Path(next((line for line in reversed(pulled) if line.strip()), "").strip())
