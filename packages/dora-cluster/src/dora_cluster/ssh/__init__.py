"""Other machines over SSH, with the settings of the OpenSSH client."""
