"""The streams of one link: sender and receiver of each edge."""
