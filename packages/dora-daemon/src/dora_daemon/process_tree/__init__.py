"""Runtime directories, and the end of every process that a killed owner leaves behind."""
