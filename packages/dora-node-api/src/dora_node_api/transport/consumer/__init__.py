"""The receiving side: records, deliveries, waiting."""
