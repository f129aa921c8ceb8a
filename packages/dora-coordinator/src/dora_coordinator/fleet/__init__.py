"""The desired state of the fleet: requests, records and roll-outs; pure."""
