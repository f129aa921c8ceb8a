"""Messages of the control plane; one module per wire or subject."""
