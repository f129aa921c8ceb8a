"""ROS 2 without an installed ROS: definitions, CDR to Arrow, rmw_zenoh."""

from dora_ros2._version import __version__

__all__ = ["__version__"]
