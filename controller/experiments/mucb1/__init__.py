"""The MUCB1 paper: Table V, the oracle of hindsight, measurements imported from the authors."""
