"""The verbs of the command ``espnet-layerskip``."""
