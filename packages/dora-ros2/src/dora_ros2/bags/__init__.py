"""ROS 2 bags: read into recordings, and written from them."""
