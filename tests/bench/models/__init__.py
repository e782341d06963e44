"""MedFusionNet against other networks, starts and remedies for imbalance: `make bench-models DATA=FOLDER`."""
