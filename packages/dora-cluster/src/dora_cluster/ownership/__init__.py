"""Who uses a machine: locks, owners, and the clusters that this account has used."""
