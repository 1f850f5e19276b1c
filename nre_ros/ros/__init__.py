"""The ROS 2 nodes: the only floor that knows rclpy and message types."""
