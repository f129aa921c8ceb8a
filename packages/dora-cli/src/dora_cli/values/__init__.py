"""Values of options: times and environment variables; atomic writes of files."""
