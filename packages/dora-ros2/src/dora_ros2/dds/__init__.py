"""ROS 2 over DDS with Cyclone DDS: topics only. Needs the extra `dds`."""
