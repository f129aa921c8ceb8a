"""The sender and the receiver of one stream."""
