"""The program that runs on other machines: sent there as a zip, standard library only."""
