"""The embedded model and its sample pictures; see the card in `model/README.md`."""
