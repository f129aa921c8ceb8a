"""Who uses a machine: locks, operators, clusters that this account has used."""
