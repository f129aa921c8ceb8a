"""A simulated robot: takes velocities, publishes its pose and the images of a camera.

It is a node of ROS as any other: `dora ros2 topics` lists what it publishes.
"""

from math import cos, sin

import pyarrow as pa

from dora import Node, Ros2Context, Ros2NodeOptions, Ros2QosPolicies, Ros2Transport

PERIOD = 0.05

node = Node()
context = Ros2Context(transport=Ros2Transport.zenoh())
ros = context.new_node("turtle", "/", Ros2NodeOptions(rosout=True))
qos = Ros2QosPolicies(reliable=True, keep_last=10)
poses = ros.create_publisher(ros.create_topic("/turtle1/pose", "turtlesim/Pose", qos))
images = ros.create_publisher(ros.create_topic("/camera/image_raw", "sensor_msgs/Image", qos))
velocities = ros.create_subscription(
    ros.create_topic("/turtle1/cmd_vel", "geometry_msgs/Twist", qos)
)
node.merge_external_events(velocities)

x, y, theta, speed, turn = 5.5, 5.5, 0.0, 0.0, 0.0
for event in node:
    if event["kind"] == "external":
        twist = event["value"][0].as_py()
        speed, turn = twist["linear"]["x"], twist["angular"]["z"]
    elif event["type"] == "INPUT":
        theta += turn * PERIOD
        x += speed * cos(theta) * PERIOD
        y += speed * sin(theta) * PERIOD
        pose = {"x": x, "y": y, "theta": theta, "linear_velocity": speed, "angular_velocity": turn}
        poses.publish(pa.array([pose]))
        picture = bytes([int(x * 20) % 256]) * (48 * 64 * 3)
        image = {"height": 48, "width": 64, "encoding": "rgb8", "step": 192}
        images.publish(pa.array([{**image, "data": picture}]))
